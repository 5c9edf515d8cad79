-- migrate: no transaction
-- Each index serves a query that a dashboard, a rule or a view runs (docs/database.md lists them). None has
-- now() in its predicate: "the last hour" is a range that a plain index serves.

-- The statistics of statements are used where the server has loaded them and we may make them visible.
do $$
begin
    if current_setting('shared_preload_libraries', true) like '%pg_stat_statements%' then
        create extension if not exists pg_stat_statements;
    end if;
exception when others then
    null;  -- without the right to read the setting or to create the extension: advice without statements
end $$;

-- a user's active trades
create index concurrently if not exists idx_btc_trades_user_status
    on btc_trades (user_id, status) where status = 'ACTIVE';
-- active trades that are due to expire
create index concurrently if not exists idx_btc_trades_expires_status
    on btc_trades (expires_at, status) where status = 'ACTIVE';
-- outcomes and confidence by timeframe, out of the index alone
create index concurrently if not exists idx_btc_trades_timeframe_status
    on btc_trades (timeframe, status, confidence_score);
-- trades made on poor data
create index concurrently if not exists idx_btc_trades_quality_score
    on btc_trades (data_quality_score, generated_at desc);
-- the newest active trades
create index concurrently if not exists idx_btc_trades_recent_active
    on btc_trades (generated_at desc) where status = 'ACTIVE';

-- the newest snapshot of a trade
create index concurrently if not exists idx_btc_hourly_snapshots_trade_snapshot
    on btc_hourly_snapshots (trade_id, snapshot_at desc);
-- the largest deviations from the prediction, either way
create index concurrently if not exists idx_btc_hourly_snapshots_deviation
    on btc_hourly_snapshots (abs(deviation_from_prediction) desc nulls last);
-- phase shifts, newest first
create index concurrently if not exists idx_btc_hourly_snapshots_phase_shift
    on btc_hourly_snapshots (snapshot_at desc) where phase_shift_detected;
-- snapshots of poor quality
create index concurrently if not exists idx_btc_hourly_snapshots_quality
    on btc_hourly_snapshots (data_quality_score, snapshot_at desc);

-- open anomalies of a severity
create index concurrently if not exists idx_quantum_anomaly_logs_active
    on quantum_anomaly_logs (severity, detected_at desc) where resolved_at is null;
-- suspensions of the system
create index concurrently if not exists idx_quantum_anomaly_logs_suspension
    on quantum_anomaly_logs (detected_at desc) where system_suspended;
-- anomalies by type and severity over a period
create index concurrently if not exists idx_quantum_anomaly_logs_type_severity
    on quantum_anomaly_logs (anomaly_type, severity, detected_at desc);

-- the newest period
create index concurrently if not exists idx_prediction_accuracy_period
    on prediction_accuracy_database (period_end desc, period_start);
-- periods of poor accuracy
create index concurrently if not exists idx_prediction_accuracy_rate
    on prediction_accuracy_database (overall_accuracy_rate, period_end desc);

-- one API's calls over a period
create index concurrently if not exists idx_api_latency_reliability_logs_name_time
    on api_latency_reliability_logs (api_name, requested_at desc);
-- the one foreign key without an index
create index concurrently if not exists idx_api_latency_reliability_logs_user_id
    on api_latency_reliability_logs (user_id);

-- firing alerts by severity
create index concurrently if not exists idx_system_alerts_active_severity
    on system_alerts (severity, triggered_at desc) where resolved_at is null;
-- resolved alerts by age: history, and what cleanup removes
create index concurrently if not exists idx_system_alerts_resolved
    on system_alerts (resolved_at desc) where resolved_at is not null;

-- Views ----------------------------------------------------------------------------------------------------

create or replace view v_active_trades_with_snapshot as
select
    t.id, t.user_id, t.symbol, t.timeframe, t.status, t.confidence_score, t.data_quality_score,
    t.entry_min, t.entry_max, t.entry_optimal, t.tp1_price, t.tp2_price, t.tp3_price, t.stop_loss_price,
    t.generated_at, t.expires_at,
    s.price as snapshot_price, s.sentiment_score, s.deviation_from_prediction, s.phase_shift_detected,
    s.data_quality_score as snapshot_quality_score, s.snapshot_at
from btc_trades t
left join lateral (
    select * from btc_hourly_snapshots h where h.trade_id = t.id order by h.snapshot_at desc limit 1
) s on true
where t.status = 'ACTIVE';

-- The pairs of timeframe and status are looked up one by one in idx_btc_trades_timeframe_status (each timeframe
-- ends with a null, the trades without status), then each pair is counted alone: a third of what grouping takes.
create or replace view v_trade_performance_summary as
with recursive frames as (
    (select timeframe from btc_trades where timeframe is not null order by timeframe limit 1)
    union all
    select (select t.timeframe from btc_trades t where t.timeframe > f.timeframe order by t.timeframe limit 1)
    from frames f where f.timeframe is not null
), pairs (timeframe, status) as (
    select f.timeframe, (
        select t.status from btc_trades t where t.timeframe = f.timeframe and t.status is not null
        order by t.status limit 1)
    from frames f where f.timeframe is not null
    union all
    select p.timeframe, (
        select t.status from btc_trades t where t.timeframe = p.timeframe and t.status > p.status
        order by t.status limit 1)
    from pairs p where p.status is not null
), by_status as (
    select p.timeframe, p.status, a.trades, a.scored, a.confidence
    from pairs p cross join lateral (
        select count(*) as trades, count(t.confidence_score) as scored, sum(t.confidence_score)::numeric as confidence
        from btc_trades t where t.timeframe = p.timeframe and t.status = p.status) a
    where p.status is not null
    union all
    select p.timeframe, null, a.trades, a.scored, a.confidence
    from pairs p cross join lateral (
        select count(*) as trades, count(t.confidence_score) as scored, sum(t.confidence_score)::numeric as confidence
        from btc_trades t where t.timeframe = p.timeframe and t.status is null) a
    where p.status is null
    union all
    select null, t.status, count(*), count(t.confidence_score), sum(t.confidence_score)::numeric
    from btc_trades t where t.timeframe is null group by t.status
)
select
    timeframe::varchar(10) as timeframe,
    sum(trades)::bigint as total_trades,
    coalesce(sum(trades) filter (where status = 'ACTIVE'), 0)::bigint as active,
    coalesce(sum(trades) filter (where status = 'HIT'), 0)::bigint as hit,
    coalesce(sum(trades) filter (where status = 'NOT_HIT'), 0)::bigint as not_hit,
    coalesce(sum(trades) filter (where status = 'INVALIDATED'), 0)::bigint as invalidated,
    coalesce(sum(trades) filter (where status = 'EXPIRED'), 0)::bigint as expired,
    round(100.0 * coalesce(sum(trades) filter (where status = 'HIT'), 0)
        / nullif(sum(trades) filter (where status in ('HIT', 'NOT_HIT')), 0), 2) as hit_rate_percent,
    round(sum(confidence) / nullif(sum(scored), 0), 2) as avg_confidence,
    round(sum(confidence) filter (where status = 'HIT')
        / nullif(sum(scored) filter (where status = 'HIT'), 0), 2) as avg_confidence_hit,
    round(sum(confidence) filter (where status = 'NOT_HIT')
        / nullif(sum(scored) filter (where status = 'NOT_HIT'), 0), 2) as avg_confidence_not_hit
from by_status
group by timeframe;

-- The last 24 hours of each API: the platform's own log, and the calls that the exporter measured.
create or replace view v_api_reliability_summary as
select
    api_name,
    count(*) as calls,
    count(*) filter (where success) as succeeded,
    round(100.0 * count(*) filter (where success) / count(*), 2) as success_percent,
    round(avg(response_ms)::numeric, 1) as avg_response_ms,
    round(percentile_cont(0.95) within group (order by response_ms)::numeric, 1) as p95_response_ms,
    max(at) filter (where not success) as last_failure_at,
    max(at) as last_call_at
from (
    select api_name::text, coalesce(success, false) as success, response_time_ms::double precision as response_ms,
        requested_at as at
    from api_latency_reliability_logs
    where requested_at > now() - interval '24 hours'
    union all
    select coalesce(context ->> 'provider', metric_name), coalesce(context ->> 'success' = 'true', false),
        value, "timestamp"
    from performance_metrics
    where metric_type = 'api_response' and "timestamp" > now() - interval '24 hours'
        and coalesce(context ->> 'outcome', '') <> 'cancelled'
) calls
group by api_name;

create or replace view v_system_health_dashboard as
with alerts as (
    select count(*) filter (where upper(severity) = 'CRITICAL') as critical,
        count(*) filter (where upper(severity) = 'WARNING') as warning,
        count(*) filter (where upper(severity) = 'INFO') as info
    from system_alerts where resolved_at is null
), recent_alerts as (
    select count(*) as last_24h from system_alerts where triggered_at > now() - interval '24 hours'
), events as (
    select
        count(*) filter (where metric_type = 'api_response') as api_calls,
        count(*) filter (where metric_type = 'api_response' and context ->> 'success' = 'false'
            and coalesce(context ->> 'outcome', '') <> 'cancelled') as api_errors,
        avg(value) filter (where metric_type = 'api_response') as avg_api_ms,
        percentile_cont(0.95) within group (order by value) filter (where metric_type = 'api_response') as p95_api_ms,
        avg(value) filter (where metric_type = 'db_query') as avg_query_ms,
        percentile_cont(0.95) within group (order by value) filter (where metric_type = 'db_query') as p95_query_ms
    from performance_metrics
    where "timestamp" > now() - interval '1 hour' and metric_type in ('api_response', 'db_query')
), active_trades as (
    select count(*) as active from btc_trades where status = 'ACTIVE'
), new_trades as (
    select count(*) as generated, avg(confidence_score) as confidence, count(distinct user_id) as users
    from btc_trades where generated_at > now() - interval '24 hours'
), accuracy as (
    select overall_accuracy_rate as rate from prediction_accuracy_database order by created_at desc limit 1
), anomalies as (
    select count(*) as last_hour, count(*) filter (where severity = 'FATAL') as fatal_last_hour,
        count(*) filter (where system_suspended and detected_at > now() - interval '5 minutes') as suspended
    from quantum_anomaly_logs where detected_at > now() - interval '1 hour'
), open_anomalies as (
    select count(*) as open from quantum_anomaly_logs where resolved_at is null
), quality as (
    select avg(data_quality_score) as score from btc_hourly_snapshots
    where snapshot_at > now() - interval '3 hours'
), connections as (
    select count(*) as used, count(*) filter (where state = 'active') as active
    from pg_stat_activity where datname = current_database()
)
select
    case
        when alerts.critical > 0 or anomalies.suspended > 0 then 'CRITICAL'
        when alerts.warning > 0 or events.api_errors > 0.05 * events.api_calls then 'DEGRADED'
        else 'HEALTHY'
    end as status,
    'up'::text as database_status,
    now() as checked_at,
    now() - pg_postmaster_start_time() as database_uptime,
    pg_database_size(current_database()) as database_size_bytes,
    connections.used as connections,
    connections.active as active_connections,
    alerts.critical as critical_alerts,
    alerts.warning as warning_alerts,
    alerts.info as info_alerts,
    recent_alerts.last_24h as alerts_last_24h,
    events.api_calls as api_calls_last_hour,
    round(events.avg_api_ms::numeric, 1) as avg_api_response_ms,
    round(events.p95_api_ms::numeric, 1) as p95_api_response_ms,
    round(100.0 * events.api_errors / nullif(events.api_calls, 0), 2) as api_error_percent,
    round(events.avg_query_ms::numeric, 2) as avg_query_ms,
    round(events.p95_query_ms::numeric, 2) as p95_query_ms,
    active_trades.active as active_trades,
    new_trades.generated as trades_last_24h,
    round(new_trades.confidence, 2) as avg_confidence_last_24h,
    new_trades.users as users_last_24h,
    (select rate from accuracy) as prediction_accuracy_percent,
    anomalies.last_hour as anomalies_last_hour,
    anomalies.fatal_last_hour as fatal_anomalies_last_hour,
    open_anomalies.open as open_anomalies,
    anomalies.suspended > 0 as system_suspended,
    round(quality.score, 2) as data_quality_score
from alerts, recent_alerts, events, active_trades, new_trades, anomalies, open_anomalies, quality, connections;

-- Functions ------------------------------------------------------------------------------------------------

-- What the statistics show since they were last reset: advice, most useful first. `statement` is ready to run
-- where the advice is certain enough to have one.
create or replace function analyze_query_performance()
returns table (kind text, object text, detail text, suggestion text, statement text)
language plpgsql as $$
declare
    has_statements boolean := to_regclass('pg_stat_statements') is not null;
begin
    return query
    select 'missing foreign-key index', fk.conrelid::regclass::text,
        format('%s references %s without an index', fk.columns, fk.confrelid::regclass),
        'deletes of referenced rows and joins scan the whole table',
        format('create index concurrently if not exists %I on %s (%s)',
            left('idx_' || rel.relname || '_' || replace(replace(fk.columns, ', ', '_'), '"', ''), 63),
            fk.conrelid::regclass, fk.columns)
    from (
        select c.conrelid, c.confrelid, c.conkey,
            (select string_agg(quote_ident(a.attname), ', ' order by k.n)
             from unnest(c.conkey) with ordinality k(num, n)
             join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.num) as columns
        from pg_constraint c
        where c.contype = 'f' and c.conparentid = 0
    ) fk
    join pg_class rel on rel.oid = fk.conrelid
    join pg_namespace space on space.oid = rel.relnamespace
    where space.nspname not in ('pg_catalog', 'information_schema') and not exists (
        select from pg_index i
        where i.indrelid = fk.conrelid and i.indisvalid and i.indpred is null
            and (i.indkey::int2[])[0:cardinality(fk.conkey) - 1] @> fk.conkey
    )
    order by 2;

    if has_statements then
        begin
            return query execute $dynamic$
                select 'sequential scans', t.relid::regclass::text,
                    format('%s scans read %s rows; %s statement calls filter by %s', t.seq_scan, t.seq_tup_read,
                        s.calls, a.attname),
                    'an index on the filtered column would let these statements read less',
                    format('create index concurrently if not exists %I on %s (%I)',
                        left('idx_' || t.relname || '_' || a.attname, 63), t.relid::regclass, a.attname)
                from pg_stat_user_tables t
                join pg_class c on c.oid = t.relid
                join pg_attribute a on a.attrelid = t.relid and a.attnum > 0 and not a.attisdropped
                join lateral (
                    select sum(st.calls)::bigint as calls from pg_stat_statements st
                    where st.dbid = (select oid from pg_database where datname = current_database())
                        and st.query ~* ('\mselect\M.*\m' || t.relname || '\M')
                        and st.query ~* ('\mwhere\M.*\m' || a.attname || '\M\s*(=|<|>|\min\M|\mbetween\M)')
                ) s on s.calls > 0
                where t.seq_scan > 10 and t.seq_tup_read > 100000 and c.reltuples > 10000
                    and not exists (
                        select from pg_index i
                        where i.indrelid = t.relid and i.indisvalid and i.indkey[0] = a.attnum
                    )
                order by s.calls desc
                limit 20
            $dynamic$;
        exception when others then
            has_statements := false;  -- the extension is there, its library is not loaded, or no right to read
        end;
    end if;

    return query
    select 'sequential scans', t.relid::regclass::text,
        format('%s scans read %s rows, %s by index', t.seq_scan, t.seq_tup_read, coalesce(t.idx_scan, 0)),
        case when has_statements then 'look at the statements on this table with EXPLAIN'
            else 'pg_stat_statements would tell by which columns; without it look at the statements with EXPLAIN'
        end,
        null::text
    from pg_stat_user_tables t join pg_class c on c.oid = t.relid
    where c.reltuples > 10000 and t.seq_scan > 10 and t.seq_tup_read > 10 * c.reltuples
        and t.seq_scan > coalesce(t.idx_scan, 0)
    order by t.seq_tup_read desc;

    return query
    select 'duplicate index', i.indexrelid::regclass::text,
        format('same columns, order and condition as %s', twin.indexrelid::regclass),
        format('writes maintain both; dropping this one frees %s',
            pg_size_pretty(pg_relation_size(i.indexrelid))),
        format('drop index concurrently if exists %s', i.indexrelid::regclass)
    from pg_index i
    join pg_index twin on twin.indrelid = i.indrelid and twin.indexrelid <> i.indexrelid
        and twin.indkey::text = i.indkey::text and twin.indclass::text = i.indclass::text
        and twin.indoption::text = i.indoption::text and twin.indcollation::text = i.indcollation::text
        and coalesce(pg_get_expr(twin.indexprs, twin.indrelid), '') = coalesce(pg_get_expr(i.indexprs, i.indrelid), '')
        and coalesce(pg_get_expr(twin.indpred, twin.indrelid), '') = coalesce(pg_get_expr(i.indpred, i.indrelid), '')
    join pg_class rel on rel.oid = i.indrelid
    join pg_namespace space on space.oid = rel.relnamespace
    where space.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
        and not i.indisunique and not rel.relispartition
        and (twin.indisunique or twin.indexrelid < i.indexrelid)
    order by 2;

    return query
    select 'unused index', u.indexrelid::regclass::text,
        format('never scanned since the statistics began, %s', pg_size_pretty(pg_relation_size(u.indexrelid))),
        'drop it if the statistics cover all that the application does (and its replicas)',
        format('drop index concurrently if exists %s', u.indexrelid::regclass)
    from pg_stat_user_indexes u
    join pg_index i on i.indexrelid = u.indexrelid
    join pg_class rel on rel.oid = u.relid
    where u.idx_scan = 0 and not i.indisunique and not rel.relispartition and rel.reltuples > 10000
        and pg_relation_size(u.indexrelid) > 1024 * 1024
    order by pg_relation_size(u.indexrelid) desc;

    if has_statements then
        begin
            return query execute $dynamic$
                select 'slow statement', left(regexp_replace(query, '\s+', ' ', 'g'), 120),
                    format('%s calls, %s ms on average, %s s in all', calls, round(mean_exec_time::numeric, 1),
                        round((total_exec_time / 1000)::numeric, 1)),
                    'EXPLAIN (ANALYZE, BUFFERS) shows where its time goes', null::text
                from pg_stat_statements
                where dbid = (select oid from pg_database where datname = current_database())
                    and calls > 1 and mean_exec_time > 100
                order by total_exec_time desc
                limit 10
            $dynamic$;
        exception when others then
            null;  -- as above
        end;
    end if;
end $$;

-- Removes what is older than `days` days; one row for each table. Metric rows go by dropping their day;
-- resolved alerts are kept 90 days at least; of the platform's tables only the API log is shortened, in
-- steps, at most 100,000 rows a call. Trades, snapshots, anomalies and accuracy are business data: never.
create or replace function cleanup_old_data(days integer default 30)
returns table (table_name text, action text, removed bigint, remark text)
language plpgsql as $$
declare
    before_day date := (now() at time zone 'UTC')::date - days;
    parent text;
    step bigint;
    total bigint;
begin
    if days < 1 then
        raise exception 'days must be 1 or more, not %', days;
    end if;
    foreach parent in array array['performance_metrics', 'quantum_samples', 'quantum_chunks'] loop
        continue when to_regclass(parent) is null;
        table_name := parent;
        action := 'partitions dropped';
        select count(*), coalesce(string_agg(d.partition || ' (about ' || d.row_estimate || ' rows)', ', '), 'none due')
            into removed, remark
            from quantum_drop_day_partitions(parent::regclass, before_day) d;
        return next;
    end loop;

    table_name := 'system_alerts';
    action := 'rows deleted';
    delete from system_alerts
        where resolved_at is not null and resolved_at < now() - make_interval(days => greatest(days, 90));
    get diagnostics removed = row_count;
    remark := format('resolved over %s days ago', greatest(days, 90));
    return next;

    table_name := 'api_latency_reliability_logs';
    total := 0;
    for i in 1..10 loop
        delete from api_latency_reliability_logs where ctid = any (array(
            select l.ctid from api_latency_reliability_logs l
            where l.requested_at < now() - make_interval(days => days)
            order by l.requested_at limit 10000
        ));
        get diagnostics step = row_count;
        total := total + step;
        exit when step < 10000;
    end loop;
    removed := total;
    remark := case when step = 10000 then 'more are due: call again' else 'all that were due' end;
    return next;
end $$;

-- Refreshes the planner's statistics of our tables and the platform's. VACUUM and REINDEX CONCURRENTLY cannot
-- run inside a function: `quantum-exporter maintain optimize` does what the remark asks for.
create or replace function optimize_tables()
returns table (table_name text, action text, dead_rows bigint, remark text)
language plpgsql as $$
declare
    target record;
begin
    for target in
        select c.oid, c.relname, coalesce(s.n_dead_tup, 0) as dead, coalesce(s.n_live_tup, 0) as live
        from pg_class c left join pg_stat_user_tables s on s.relid = c.oid
        where c.oid in (
            to_regclass('users'), to_regclass('btc_trades'), to_regclass('btc_hourly_snapshots'),
            to_regclass('quantum_anomaly_logs'), to_regclass('prediction_accuracy_database'),
            to_regclass('api_latency_reliability_logs'), to_regclass('performance_metrics'),
            to_regclass('system_alerts'), to_regclass('quantum_series'), to_regclass('quantum_samples'),
            to_regclass('quantum_chunks')
        ) and c.relkind in ('r', 'p')
        order by c.relname
    loop
        table_name := target.relname;
        dead_rows := target.dead;
        begin
            execute format('analyze %s', target.oid::regclass);
            action := 'analyzed';
            remark := case when target.dead > 1000 and target.dead > 0.1 * target.live
                then 'vacuum needed, which a function cannot do: run quantum-exporter maintain optimize'
                else 'no vacuum needed' end;
        exception when insufficient_privilege then
            action := 'skipped';
            remark := 'the role does not own this table';
        end;
        return next;
    end loop;
end $$;
