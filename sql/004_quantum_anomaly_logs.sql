-- migrate: no transaction

create table if not exists quantum_anomaly_logs (
    id                          uuid primary key default gen_random_uuid(),
    anomaly_type                varchar(100) not null,
    severity                    varchar(20) not null,
    description                 text,
    impact                      text,
    affected_sources            jsonb,
    system_suspended            boolean not null default false,
    suspension_duration_minutes integer,
    resolution_action           text,
    trade_id                    uuid references btc_trades (id) on delete set null,
    market_conditions           jsonb,
    detected_at                 timestamptz not null default now(),
    resolved_at                 timestamptz,
    created_at                  timestamptz not null default now()
);

select quantum_add_missing_columns('quantum_anomaly_logs', array[
    'anomaly_type varchar(100)', 'severity varchar(20)', 'description text', 'impact text',
    'affected_sources jsonb', 'system_suspended boolean default false', 'suspension_duration_minutes integer',
    'resolution_action text', 'trade_id uuid', 'market_conditions jsonb',
    'detected_at timestamptz default now()', 'resolved_at timestamptz', 'created_at timestamptz default now()'
]);

create index concurrently if not exists idx_quantum_anomaly_logs_severity on quantum_anomaly_logs (severity);
create index concurrently if not exists idx_quantum_anomaly_logs_detected_at
    on quantum_anomaly_logs (detected_at desc);
create index concurrently if not exists idx_quantum_anomaly_logs_trade_id on quantum_anomaly_logs (trade_id);
create index concurrently if not exists idx_quantum_anomaly_logs_anomaly_type
    on quantum_anomaly_logs (anomaly_type);
