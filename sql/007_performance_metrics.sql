-- One row for each measured event, in partitions of one UTC day. No default partition: with one, a partition
-- could not be detached concurrently, and attaching the next day would scan it under a lock.

create table if not exists performance_metrics (
    id          uuid not null default gen_random_uuid(),
    metric_type varchar(50) not null,
    metric_name varchar(255) not null,
    value       double precision not null,
    unit        varchar(20),
    context     jsonb not null default '{}',
    "timestamp" timestamptz not null default now(),
    primary key (id, "timestamp")
) partition by range ("timestamp");

-- an event of a kind: the average time of one endpoint, newest first
create index if not exists idx_performance_metrics_type_time
    on performance_metrics (metric_type, metric_name, "timestamp" desc);
-- everything of the last hour
create index if not exists idx_performance_metrics_recent on performance_metrics ("timestamp" desc);
-- a kind over a period, oldest first: rates, and what cleanup would find
create index if not exists idx_performance_metrics_old on performance_metrics (metric_type, "timestamp");
-- one endpoint or query, whatever was measured of it
create index if not exists idx_performance_metrics_name on performance_metrics (metric_name, "timestamp" desc);
-- the few that failed
create index if not exists idx_performance_metrics_failed on performance_metrics ("timestamp" desc)
    where context ->> 'success' = 'false';
-- one provider's reliability
create index if not exists idx_performance_metrics_provider
    on performance_metrics ((context ->> 'provider'), "timestamp" desc);
-- the slowest calls and queries
create index if not exists idx_performance_metrics_slow on performance_metrics (value desc)
    where unit = 'ms';

-- Makes the partitions of the UTC days from first_day to last_day that are missing; returns how many.
-- A day's table is made apart and then attached, which lets readers and writers of the parent go on.
create or replace function quantum_ensure_day_partitions(parent regclass, first_day date, last_day date)
returns integer
language plpgsql as $$
declare
    day date;
    partition text;
    space text := (select quote_ident(nspname) from pg_class c join pg_namespace n on n.oid = relnamespace
                   where c.oid = parent);
    made integer := 0;
begin
    for day in select generate_series(first_day, last_day, interval '1 day')::date loop
        partition := (select relname from pg_class where oid = parent) || to_char(day, '"_"YYYYMMDD');
        continue when exists (
            select from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = parent and c.relname = partition
        );
        -- two processes may want the same new day
        perform pg_advisory_xact_lock(hashtext(partition));
        continue when exists (
            select from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = parent and c.relname = partition
        );
        execute format('create table if not exists %s.%I (like %s including all)', space, partition, parent);
        execute format(
            'alter table %s attach partition %s.%I for values from (%L) to (%L)', parent, space, partition,
            day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC'
        );
        made := made + 1;
    end loop;
    return made;
end $$;

-- The partitions whose whole UTC day lies before the given one, oldest first.
create or replace function quantum_day_partitions_before(parent regclass, before_day date)
returns table (partition regclass, day date)
language sql stable as $$
    select c.oid::regclass, to_date(right(c.relname, 8), 'YYYYMMDD')
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = parent
        and case when c.relname ~ '_\d{8}$' then to_date(right(c.relname, 8), 'YYYYMMDD') end < before_day
    order by 2
$$;

-- Drops those partitions; returns what went. Waits for each lock at most 100 ms, three times, and leaves
-- a partition that is in use for the next call.
create or replace function quantum_drop_day_partitions(parent regclass, before_day date)
returns table (partition text, row_estimate bigint)
language plpgsql as $$
declare
    old record;
    estimate bigint;
begin
    for old in select p.partition as rel from quantum_day_partitions_before(parent, before_day) p loop
        estimate := (select greatest(reltuples, 0)::bigint from pg_class where oid = old.rel);
        partition := old.rel::text;
        for attempt in 1..3 loop
            begin
                set local lock_timeout = '100ms';
                execute format('drop table %s', old.rel);
                row_estimate := estimate;
                return next;
                exit;
            exception when lock_not_available then
                perform pg_sleep(0.05 * attempt);
            end;
        end loop;
    end loop;
end $$;

select quantum_ensure_day_partitions(
    'performance_metrics', (now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + 2
);
