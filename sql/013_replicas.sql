-- Replicas of one database: who is there, and who notifies. The lock itself is an advisory one; this row says
-- who took it last, so that one who takes it knows whether another has notified in between.

create table if not exists quantum_replicas (
    id      text primary key,
    name    text not null,
    url     text not null,
    seen_at timestamptz not null default now()
);
comment on table quantum_replicas is 'running exporters; a row goes a day after its exporter was last seen';

create table if not exists quantum_leader (
    only_row boolean primary key default true check (only_row),
    term     bigint not null,
    id       text not null,
    name     text not null,
    url      text not null,
    since    timestamptz not null default now()
);
comment on column quantum_leader.term is 'one more each time that another replica takes over';
