-- migrate: no transaction

create table if not exists api_latency_reliability_logs (
    id                  uuid primary key default gen_random_uuid(),
    api_name            varchar(100) not null,
    endpoint            varchar(255),
    http_method         varchar(10),
    response_time_ms    integer,
    status_code         integer,
    success             boolean,
    error_message       text,
    error_type          varchar(100),
    request_id          uuid,
    user_id             uuid references users (id) on delete set null,
    trade_id            uuid references btc_trades (id) on delete set null,
    request_payload     jsonb,
    response_size_bytes integer,
    retry_count         integer default 0,
    requested_at        timestamptz not null default now(),
    created_at          timestamptz not null default now()
);

select quantum_add_missing_columns('api_latency_reliability_logs', array[
    'api_name varchar(100)', 'endpoint varchar(255)', 'http_method varchar(10)', 'response_time_ms integer',
    'status_code integer', 'success boolean', 'error_message text', 'error_type varchar(100)',
    'request_id uuid', 'user_id uuid', 'trade_id uuid', 'request_payload jsonb',
    'response_size_bytes integer', 'retry_count integer default 0',
    'requested_at timestamptz default now()', 'created_at timestamptz default now()'
]);

create index concurrently if not exists idx_api_latency_reliability_logs_api_name
    on api_latency_reliability_logs (api_name);
create index concurrently if not exists idx_api_latency_reliability_logs_requested_at
    on api_latency_reliability_logs (requested_at desc);
create index concurrently if not exists idx_api_latency_reliability_logs_success
    on api_latency_reliability_logs (success);
create index concurrently if not exists idx_api_latency_reliability_logs_status_code
    on api_latency_reliability_logs (status_code);
create index concurrently if not exists idx_api_latency_reliability_logs_trade_id
    on api_latency_reliability_logs (trade_id);
