-- migrate: no transaction
-- One row for each episode of an alert instance, and the notifier's own tables: what is firing, the cooldown
-- gates, the outbox with its deliveries, the silences. An installation may have system_alerts already: then
-- it gets the columns that it lacks, all of them without a rewrite of the table.

create table if not exists system_alerts (
    id               uuid primary key default gen_random_uuid(),
    severity         varchar(20) not null,
    type             varchar(100) not null,
    title            varchar(255) not null,
    message          text not null,
    context          jsonb,
    triggered_at     timestamptz not null default now(),
    resolved_at      timestamptz,
    resolved_by      varchar(255),
    resolution_notes text,
    created_at       timestamptz not null default now()
);

select quantum_add_missing_columns('system_alerts', array[
    'episode_id text', 'fingerprint text', 'rule_key text', 'labels jsonb', 'resolve_reason text',
    'active boolean not null default false',
    'acked_at timestamptz', 'acked_by text', 'ack_notes text',
    'notification_count integer not null default 0', 'suppressed_count integer not null default 0',
    'notified_at timestamptz', 'value double precision', 'peak double precision', 'record json'
]);

-- alerts of one kind, newest first: alerts history --alertname
create index concurrently if not exists idx_system_alerts_type on system_alerts (type, triggered_at desc);
-- the last alerts of any kind: the dashboard document and alerts history
create index concurrently if not exists idx_system_alerts_triggered_at on system_alerts (triggered_at desc);
-- all episodes of one alert instance: how often it flapped
create index concurrently if not exists idx_system_alerts_fingerprint on system_alerts (fingerprint, triggered_at desc);
-- the few whose condition still holds: read at each start
create index concurrently if not exists idx_system_alerts_active on system_alerts (triggered_at) where active;

create table if not exists quantum_alert_instances (
    rule_key    text not null,
    fingerprint text not null,
    record      json not null,
    updated_at  timestamptz not null default now(),
    primary key (rule_key, fingerprint)
);

create table if not exists quantum_alert_cooldowns (
    id          text primary key,
    receiver    text not null,
    armed_at    timestamptz,
    ends_at     timestamptz,
    suppressed  integer not null default 0,
    record      json not null,
    updated_at  timestamptz not null default now()
);

-- The outbox while state is 'queued', the log of deliveries and dead letters after that.
create table if not exists quantum_alert_notifications (
    id           text primary key,
    receiver     text not null,
    destination  text not null,
    status       text not null,
    state        text not null,
    episode_ids  text[] not null,
    created_at   timestamptz not null,
    finished_at  timestamptz,
    attempts     integer not null default 0,
    via          text,
    error        text,
    record       json not null
);

create index if not exists idx_quantum_alert_notifications_queued
    on quantum_alert_notifications (created_at) where state = 'queued';
create index if not exists idx_quantum_alert_notifications_finished
    on quantum_alert_notifications (finished_at) where state <> 'queued';
create index if not exists idx_quantum_alert_notifications_episodes
    on quantum_alert_notifications using gin (episode_ids);

create table if not exists quantum_alert_silences (
    id         text primary key,
    starts_at  timestamptz not null,
    ends_at    timestamptz not null,
    created_by text not null,
    comment    text not null,
    record     json not null
);
