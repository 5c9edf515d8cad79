-- The statements that took most of the server's time, where pg_stat_statements keeps count, else no rows. Of queries
-- and changes of rows only: their constants are stripped, while others (a new password) are kept as they were typed.
create or replace function quantum_top_statements(most integer default 10)
returns table (queryid text, statement text, calls bigint, seconds double precision)
language plpgsql as $$
begin
    if to_regclass('pg_stat_statements') is null then
        return;
    end if;
    return query execute $dynamic$
        select s.queryid::text, left(regexp_replace(min(s.query), '\s+', ' ', 'g'), 100), sum(s.calls)::bigint,
            sum(s.total_exec_time) / 1000
        from pg_stat_statements s
        where s.dbid = (select oid from pg_database where datname = current_database())
            and s.query ~* '^\s*(select|insert|update|delete|merge|with)\M'
        group by s.queryid
        order by 4 desc
        limit $1
    $dynamic$ using most;
exception when object_not_in_prerequisite_state or insufficient_privilege then
    return;  -- the extension is there, its library is not loaded, or no right to read
end $$;
