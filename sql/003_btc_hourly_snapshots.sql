-- migrate: no transaction

create table if not exists btc_hourly_snapshots (
    id                        uuid primary key default gen_random_uuid(),
    trade_id                  uuid references btc_trades (id) on delete cascade,
    price                     numeric(20, 8),
    volume_24h                numeric(30, 2),
    market_cap                numeric(30, 2),
    mempool_size              integer,
    whale_transactions        integer,
    difficulty                numeric(30, 2),
    sentiment_score           integer check (sentiment_score between 0 and 100),
    social_dominance          numeric(5, 2),
    deviation_from_prediction numeric(10, 4),
    phase_shift_detected      boolean default false,
    data_quality_score        integer check (data_quality_score between 0 and 100),
    snapshot_at               timestamptz not null default now(),
    created_at                timestamptz not null default now()
);

select quantum_add_missing_columns('btc_hourly_snapshots', array[
    'trade_id uuid', 'price numeric(20, 8)', 'volume_24h numeric(30, 2)', 'market_cap numeric(30, 2)',
    'mempool_size integer', 'whale_transactions integer', 'difficulty numeric(30, 2)',
    'sentiment_score integer', 'social_dominance numeric(5, 2)', 'deviation_from_prediction numeric(10, 4)',
    'phase_shift_detected boolean default false', 'data_quality_score integer',
    'snapshot_at timestamptz default now()', 'created_at timestamptz default now()'
]);

create index concurrently if not exists idx_btc_hourly_snapshots_trade_id on btc_hourly_snapshots (trade_id);
create index concurrently if not exists idx_btc_hourly_snapshots_snapshot_at
    on btc_hourly_snapshots (snapshot_at desc);
