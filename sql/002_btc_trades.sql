-- migrate: no transaction

create table if not exists btc_trades (
    id                         uuid primary key default gen_random_uuid(),
    user_id                    uuid references users (id) on delete cascade,
    symbol                     varchar(10) not null default 'BTC',
    entry_min                  numeric(20, 8),
    entry_max                  numeric(20, 8),
    entry_optimal              numeric(20, 8),
    tp1_price                  numeric(20, 8),
    tp1_allocation             integer default 50,
    tp2_price                  numeric(20, 8),
    tp2_allocation             integer default 30,
    tp3_price                  numeric(20, 8),
    tp3_allocation             integer default 20,
    stop_loss_price            numeric(20, 8),
    max_loss_percent           numeric(5, 2),
    timeframe                  varchar(10),
    timeframe_hours            integer,
    confidence_score           integer check (confidence_score between 0 and 100),
    quantum_reasoning          text,
    mathematical_justification text,
    wave_pattern_collapse      varchar(50),
    data_quality_score         integer check (data_quality_score between 0 and 100),
    cross_api_proof            jsonb,
    historical_triggers        jsonb,
    status                     varchar(50) not null default 'ACTIVE',
    generated_at               timestamptz not null default now(),
    expires_at                 timestamptz,
    last_validated_at          timestamptz,
    created_at                 timestamptz not null default now(),
    updated_at                 timestamptz not null default now()
);

select quantum_add_missing_columns('btc_trades', array[
    'user_id uuid',
    'symbol varchar(10) default ''BTC''',
    'entry_min numeric(20, 8)', 'entry_max numeric(20, 8)', 'entry_optimal numeric(20, 8)',
    'tp1_price numeric(20, 8)', 'tp1_allocation integer default 50',
    'tp2_price numeric(20, 8)', 'tp2_allocation integer default 30',
    'tp3_price numeric(20, 8)', 'tp3_allocation integer default 20',
    'stop_loss_price numeric(20, 8)', 'max_loss_percent numeric(5, 2)',
    'timeframe varchar(10)', 'timeframe_hours integer', 'confidence_score integer',
    'quantum_reasoning text', 'mathematical_justification text', 'wave_pattern_collapse varchar(50)',
    'data_quality_score integer', 'cross_api_proof jsonb', 'historical_triggers jsonb',
    'status varchar(50) default ''ACTIVE''',
    'generated_at timestamptz default now()', 'expires_at timestamptz', 'last_validated_at timestamptz',
    'created_at timestamptz default now()', 'updated_at timestamptz default now()'
]);

select quantum_ensure_updated_at('btc_trades');

create index concurrently if not exists idx_btc_trades_user_id on btc_trades (user_id);
create index concurrently if not exists idx_btc_trades_status on btc_trades (status);
create index concurrently if not exists idx_btc_trades_generated_at on btc_trades (generated_at desc);
create index concurrently if not exists idx_btc_trades_expires_at on btc_trades (expires_at);
