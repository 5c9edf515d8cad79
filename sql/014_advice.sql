-- The advice on indexes again: what it told twice once, and nothing against the indexes made here; and the
-- five-minute history among the tables whose statistics are refreshed.

-- What the statistics show since they were last reset: advice, most useful first. `statement` is ready to run
-- where the advice is certain enough to have one. An index that these migrations made is never called unused: the
-- rule, view or command that it serves may run once a month. Nor is any other before a week of statistics.
create or replace function analyze_query_performance()
returns table (kind text, object text, detail text, suggestion text, statement text)
language plpgsql as $$
declare
    has_statements boolean := to_regclass('pg_stat_statements') is not null;
    since timestamptz := (select stats_reset from pg_stat_database where datname = current_database());
    found record;
    told oid[] := '{}';
    shipped text[] := array[
        'idx_api_latency_reliability_logs_api_name', 'idx_api_latency_reliability_logs_name_time',
        'idx_api_latency_reliability_logs_requested_at', 'idx_api_latency_reliability_logs_status_code',
        'idx_api_latency_reliability_logs_success', 'idx_api_latency_reliability_logs_trade_id',
        'idx_api_latency_reliability_logs_user_id', 'idx_btc_hourly_snapshots_deviation',
        'idx_btc_hourly_snapshots_phase_shift', 'idx_btc_hourly_snapshots_quality',
        'idx_btc_hourly_snapshots_snapshot_at', 'idx_btc_hourly_snapshots_trade_id',
        'idx_btc_hourly_snapshots_trade_snapshot', 'idx_btc_trades_expires_at', 'idx_btc_trades_expires_status',
        'idx_btc_trades_generated_at', 'idx_btc_trades_quality_score', 'idx_btc_trades_recent_active',
        'idx_btc_trades_status', 'idx_btc_trades_timeframe_status', 'idx_btc_trades_user_id',
        'idx_btc_trades_user_status', 'idx_performance_metrics_failed', 'idx_performance_metrics_name',
        'idx_performance_metrics_old', 'idx_performance_metrics_provider', 'idx_performance_metrics_recent',
        'idx_performance_metrics_slow', 'idx_performance_metrics_type_time',
        'idx_prediction_accuracy_database_created_at', 'idx_prediction_accuracy_database_period',
        'idx_prediction_accuracy_period', 'idx_prediction_accuracy_rate',
        'idx_quantum_alert_notifications_episodes', 'idx_quantum_alert_notifications_finished',
        'idx_quantum_alert_notifications_queued', 'idx_quantum_anomaly_logs_active',
        'idx_quantum_anomaly_logs_anomaly_type', 'idx_quantum_anomaly_logs_detected_at',
        'idx_quantum_anomaly_logs_severity', 'idx_quantum_anomaly_logs_suspension',
        'idx_quantum_anomaly_logs_trade_id', 'idx_quantum_anomaly_logs_type_severity',
        'idx_quantum_quota_sends_at', 'idx_quantum_series_labels', 'idx_quantum_series_name',
        'idx_system_alerts_active', 'idx_system_alerts_active_severity', 'idx_system_alerts_fingerprint',
        'idx_system_alerts_resolved', 'idx_system_alerts_triggered_at', 'idx_system_alerts_type'
    ];
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
            for found in execute $dynamic$
                select t.relid,
                    format('%s scans read %s rows; %s statement calls filter by %s', t.seq_scan, t.seq_tup_read,
                        s.calls, a.attname) as detail,
                    format('create index concurrently if not exists %I on %s (%I)',
                        left('idx_' || t.relname || '_' || a.attname, 63), t.relid::regclass, a.attname) as statement
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
            $dynamic$
            loop
                told := told || found.relid;
                return query select 'sequential scans', found.relid::regclass::text, found.detail,
                    'an index on the filtered column would let these statements read less', found.statement;
            end loop;
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
        and t.seq_scan > coalesce(t.idx_scan, 0) and t.relid <> all (told)
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
        format('never scanned since %s, %s', coalesce(to_char(since, 'YYYY-MM-DD'), 'the statistics began'),
            pg_size_pretty(pg_relation_size(u.indexrelid))),
        'drop it if the statistics cover all that the application does (and its replicas)',
        format('drop index concurrently if exists %s', u.indexrelid::regclass)
    from pg_stat_user_indexes u
    join pg_index i on i.indexrelid = u.indexrelid
    join pg_class rel on rel.oid = u.relid
    where u.idx_scan = 0 and u.indexrelname <> all (shipped)
        and (since is null or since < now() - interval '7 days')
        and not i.indisunique and not rel.relispartition and rel.reltuples > 10000
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
            to_regclass('quantum_chunks'), to_regclass('quantum_rollups')
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
