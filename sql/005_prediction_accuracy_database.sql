-- migrate: no transaction

create table if not exists prediction_accuracy_database (
    id                         uuid primary key default gen_random_uuid(),
    total_trades               integer not null default 0,
    trades_hit                 integer not null default 0,
    trades_not_hit             integer not null default 0,
    trades_invalidated         integer not null default 0,
    trades_expired             integer not null default 0,
    overall_accuracy_rate      numeric(5, 2),
    average_confidence_winning numeric(5, 2),
    average_confidence_losing  numeric(5, 2),
    average_deviation_score    numeric(10, 4),
    accuracy_1h                numeric(5, 2),
    accuracy_4h                numeric(5, 2),
    accuracy_1d                numeric(5, 2),
    accuracy_1w                numeric(5, 2),
    average_data_quality       numeric(5, 2),
    api_reliability_cmc        numeric(5, 2),
    api_reliability_coingecko  numeric(5, 2),
    api_reliability_kraken     numeric(5, 2),
    api_reliability_blockchain numeric(5, 2),
    api_reliability_lunarcrush numeric(5, 2),
    total_anomalies            integer not null default 0,
    fatal_anomalies            integer not null default 0,
    system_suspensions         integer not null default 0,
    period_start               timestamptz,
    period_end                 timestamptz,
    created_at                 timestamptz not null default now(),
    updated_at                 timestamptz not null default now()
);

select quantum_add_missing_columns('prediction_accuracy_database', array[
    'total_trades integer default 0', 'trades_hit integer default 0', 'trades_not_hit integer default 0',
    'trades_invalidated integer default 0', 'trades_expired integer default 0',
    'overall_accuracy_rate numeric(5, 2)',
    'average_confidence_winning numeric(5, 2)', 'average_confidence_losing numeric(5, 2)',
    'average_deviation_score numeric(10, 4)',
    'accuracy_1h numeric(5, 2)', 'accuracy_4h numeric(5, 2)', 'accuracy_1d numeric(5, 2)',
    'accuracy_1w numeric(5, 2)', 'average_data_quality numeric(5, 2)',
    'api_reliability_cmc numeric(5, 2)', 'api_reliability_coingecko numeric(5, 2)',
    'api_reliability_kraken numeric(5, 2)', 'api_reliability_blockchain numeric(5, 2)',
    'api_reliability_lunarcrush numeric(5, 2)',
    'total_anomalies integer default 0', 'fatal_anomalies integer default 0',
    'system_suspensions integer default 0', 'period_start timestamptz', 'period_end timestamptz',
    'created_at timestamptz default now()', 'updated_at timestamptz default now()'
]);

select quantum_ensure_updated_at('prediction_accuracy_database');

create index concurrently if not exists idx_prediction_accuracy_database_period
    on prediction_accuracy_database (period_start, period_end);
create index concurrently if not exists idx_prediction_accuracy_database_created_at
    on prediction_accuracy_database (created_at desc);
