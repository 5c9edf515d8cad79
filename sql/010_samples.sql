-- The sample store behind history and backtests. Rows of a day stand in one partition; readers use the view
-- quantum_metrics, so that older days may be stored in another form behind it later.

create table if not exists quantum_series (
    id          integer primary key generated always as identity,
    name        text not null,
    labels      jsonb not null,
    fingerprint uuid not null unique,
    first_seen  timestamptz not null default now()
);
comment on column quantum_series.labels is 'all labels but __name__, which is the column name';
comment on column quantum_series.fingerprint is 'BLAKE2b (16 bytes) of the sorted label pairs';

create index if not exists idx_quantum_series_name on quantum_series (name);
create index if not exists idx_quantum_series_labels on quantum_series using gin (labels jsonb_path_ops);

create table if not exists quantum_samples (
    ts        timestamptz not null,
    series_id integer not null,
    value     double precision not null,
    primary key (series_id, ts)
) partition by range (ts);
comment on table quantum_samples is
    'no foreign key to quantum_series: it would cost a look-up for each sample, and series are never deleted';

select quantum_ensure_day_partitions(
    'quantum_samples', (now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + 2
);

-- The staleness marker ends a series and is a NaN like another to SQL: most readers filter value <> 'NaN'.
create or replace view quantum_metrics as
select p.ts as "time", s.name, s.labels, p.value
from quantum_samples p join quantum_series s on s.id = p.series_id;
