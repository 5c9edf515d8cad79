-- Days that are over, packed: a row holds one series for a day (at most 8192 samples of it) in a few kilobytes
-- instead of half a megabyte, and plain SQL reads it through the views. Times and values are steps between
-- integers, see quantum_chunk_sums; a day's packed table takes the place of its hot one in one transaction.

create table if not exists quantum_chunks (
    start_ts  timestamptz not null,
    end_ts    timestamptz not null,
    series_id integer not null,
    n         integer not null,
    t_step    bigint not null,
    t_unit    bigint not null,
    t_width   smallint not null,
    t_data    bytea,
    v_base    bigint not null,
    v_step    bigint not null,
    v_unit    bigint not null,
    v_width   smallint not null,
    v_data    bytea,
    divisor   integer not null,
    odd_at    integer[],
    odd       double precision[],
    primary key (series_id, start_ts)
) partition by range (start_ts);
comment on table quantum_chunks is
    'packed samples, a partition for each UTC day; read them through quantum_metrics or quantum_metrics_between()';
comment on column quantum_chunks.divisor is
    'value = integer / divisor; 0: v_data holds the eight bytes of each value; -1: all values have the bits v_base';

-- Five minutes in one number each: minimum, maximum, sum, count and last value, packed in the same way.
create table if not exists quantum_rollups (
    like quantum_chunks,
    stat smallint not null,
    primary key (series_id, stat, start_ts)
) partition by range (start_ts);
comment on column quantum_rollups.stat is '1 minimum, 2 maximum, 3 sum, 4 count, 5 last value; times are where the five minutes begin';

-- How far the packing of a day has come; a row goes when its day has been swapped.
create table if not exists quantum_packing (
    day         date primary key,
    last_series integer not null,
    hot_rows    bigint not null,
    samples     bigint not null,
    started_at  timestamptz not null default now()
);

-- Running sums of n numbers of `width` bits: below 8 bits several to a byte, the first lowest; else all lowest
-- bytes, then all next ones. The rows come out of generate_series in order, so the window needs no sort.
create or replace function quantum_chunk_sums(data bytea, width integer, n integer)
returns bigint[]
language plpgsql immutable parallel safe as $$
declare
    flat bytea := data || ''::bytea;  -- read from the disk once, not for each byte
begin
    return case
        when width = 0 then array_fill(0::bigint, array[n])
        when width < 8 then array(
            select sum((get_byte(flat, g * width / 8) >> (g * width % 8)) & ((1 << width) - 1)) over (rows unbounded preceding)
            from generate_series(0, n - 1) g)
        when width = 8 then array(
            select sum(get_byte(flat, g)) over (rows unbounded preceding) from generate_series(0, n - 1) g)
        when width = 16 then array(
            select sum(get_byte(flat, g) + 256 * get_byte(flat, n + g)) over (rows unbounded preceding)
            from generate_series(0, n - 1) g)
        when width = 24 then array(
            select sum(get_byte(flat, g) + 256 * get_byte(flat, n + g) + 65536 * get_byte(flat, 2 * n + g))
                over (rows unbounded preceding)
            from generate_series(0, n - 1) g)
        else array(
            select (sum(quantum_chunk_number(flat, width / 8, n, g)) over (rows unbounded preceding))::bigint
            from generate_series(0, n - 1) g)
    end;
end $$;

-- Number g (from 0) of n, its `bytes` bytes each n places apart, the lowest first.
create or replace function quantum_chunk_number(flat bytea, bytes integer, n integer, g integer)
returns bigint
language sql immutable parallel safe as $$
    select case when bytes > 0 then get_byte(flat, g)::bigint else 0 end
        | case when bytes > 1 then get_byte(flat, n + g)::bigint << 8 else 0 end
        | case when bytes > 2 then get_byte(flat, 2 * n + g)::bigint << 16 else 0 end
        | case when bytes > 3 then get_byte(flat, 3 * n + g)::bigint << 24 else 0 end
        | case when bytes > 4 then get_byte(flat, 4 * n + g)::bigint << 32 else 0 end
        | case when bytes > 5 then get_byte(flat, 5 * n + g)::bigint << 40 else 0 end
        | case when bytes > 6 then get_byte(flat, 6 * n + g)::bigint << 48 else 0 end
        | case when bytes > 7 then get_byte(flat, 7 * n + g)::bigint << 56 else 0 end
$$;

-- The float8 that has these bits. Exact; of a NaN SQL cannot keep the bits, it comes out as NaN.
create or replace function quantum_float8(bits bigint)
returns double precision
language sql immutable parallel safe as $$
    select case
        when bits = (-9223372036854775808)::bigint then '-0'::float8
        when (bits >> 52) & 2047 = 2047 then
            case when bits & 4503599627370495 <> 0 then 'NaN'::float8
                when bits < 0 then '-Infinity'::float8 else 'Infinity'::float8 end
        when (bits >> 52) & 2047 = 0 then
            (bits & 4503599627370495)::float8 * '4.9406564584124654e-324'::float8
                * case when bits < 0 then -1 else 1 end
        -- two factors, so that neither leaves the range
        when (bits >> 52) & 2047 < 1075 then
            ((bits & 4503599627370495) | 4503599627370496)::float8
                / power(2::float8, ((1075 - ((bits >> 52) & 2047)) / 2)::float8)
                / power(2::float8, (1075 - ((bits >> 52) & 2047) - (1075 - ((bits >> 52) & 2047)) / 2)::float8)
                * case when bits < 0 then -1 else 1 end
        else
            ((bits & 4503599627370495) | 4503599627370496)::float8
                * power(2::float8, (((bits >> 52) & 2047) - 1075)::float8)
                * case when bits < 0 then -1 else 1 end
    end
$$;

create or replace function quantum_unpack(c quantum_chunks)
returns table ("time" timestamptz, value double precision)
language plpgsql immutable parallel safe rows 5760 cost 10000 as $$
declare
    offsets bigint[];
    numbers double precision[];
    flat bytea;
begin
    if c.t_width = 0 then
        offsets := array(select c.t_step * g from generate_series(0, c.n - 1) g);
    else
        offsets := array(
            select c.t_step * (s.i - 1) + c.t_unit * s.total
            from unnest(quantum_chunk_sums(c.t_data, c.t_width, c.n)) with ordinality s (total, i));
    end if;
    if c.divisor = -1 then
        numbers := array_fill(quantum_float8(c.v_base), array[c.n]);
    elsif c.divisor = 0 then
        flat := c.v_data || ''::bytea;
        numbers := array(
            select quantum_float8(quantum_chunk_number(flat, 8, c.n, g)) from generate_series(0, c.n - 1) g);
    elsif c.v_width = 0 then
        numbers := array(
            select (c.v_base + c.v_step * g)::float8 / c.divisor from generate_series(0, c.n - 1) g);
    else
        numbers := array(
            select (c.v_base + c.v_step * (s.i - 1) + c.v_unit * s.total)::float8 / c.divisor
            from unnest(quantum_chunk_sums(c.v_data, c.v_width, c.n)) with ordinality s (total, i));
    end if;
    for k in 1 .. coalesce(cardinality(c.odd_at), 0) loop
        numbers[c.odd_at[k] + 1] := c.odd[k];
    end loop;
    return query
        select c.start_ts + interval '1 microsecond' * u.at, u.number from unnest(offsets, numbers) u (at, number);
end $$;

-- Whether the hot table of the day of `at` exists: a packed day has one while late samples wait to be packed.
create or replace function quantum_has_hot_day(at timestamptz)
returns boolean
language sql stable parallel safe as $$
    select exists (
        select from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = to_regclass('quantum_samples')
            and c.relname = 'quantum_samples_' || to_char(at at time zone 'UTC', 'YYYYMMDD'))
$$;

-- Whether there are samples of the day of `at`, hot or packed: where there are none the five minutes answer.
create or replace function quantum_has_samples_day(at timestamptz)
returns boolean
language sql stable parallel safe as $$
    select exists (
        select from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent in (to_regclass('quantum_samples'), to_regclass('quantum_chunks'))
            and right(c.relname, 8) = to_char(at at time zone 'UTC', 'YYYYMMDD'))
$$;

-- As quantum_metrics, between two times (both included), whatever lies outside not even unpacked.
create or replace function quantum_metrics_between(since timestamptz, until timestamptz)
returns table ("time" timestamptz, name text, labels jsonb, value double precision)
language sql stable parallel safe as $$
    select p.ts, s.name, s.labels, p.value
    from quantum_samples p join quantum_series s on s.id = p.series_id
    where p.ts >= since and p.ts <= until
    union all
    select u."time", s.name, s.labels, u.value
    from quantum_series s
    join quantum_chunks c on c.series_id = s.id
    cross join lateral (select quantum_has_hot_day(c.start_ts) as late offset 0) d
    cross join lateral quantum_unpack(c) u
    where c.start_ts >= date_trunc('day', since at time zone 'UTC') at time zone 'UTC'
        and c.start_ts <= until and c.end_ts >= since
        and u."time" >= since and u."time" <= until
        and case when d.late then not exists (
            select from quantum_samples p where p.series_id = c.series_id and p.ts = u."time") else true end
$$;

-- The staleness marker ends a series and is a NaN like another to SQL: most readers filter value <> 'NaN'.
create or replace view quantum_metrics as
select p.ts as "time", s.name, s.labels, p.value
from quantum_samples p join quantum_series s on s.id = p.series_id
union all
select u."time", s.name, s.labels, u.value
from quantum_series s
join quantum_chunks c on c.series_id = s.id
cross join lateral (select quantum_has_hot_day(c.start_ts) as late offset 0) d
cross join lateral quantum_unpack(c) u
where case when d.late then not exists (
    select from quantum_samples p where p.series_id = c.series_id and p.ts = u."time") else true end;

-- Five minutes a row, kept far longer than the samples; they begin at "time".
create or replace function quantum_metrics_5m_between(since timestamptz, until timestamptz)
returns table (
    "time" timestamptz, name text, labels jsonb, min double precision, max double precision,
    sum double precision, count bigint, last double precision
)
language sql stable parallel safe as $$
    select u."time", s.name, s.labels,
        max(u.value) filter (where r.stat = 1), max(u.value) filter (where r.stat = 2),
        max(u.value) filter (where r.stat = 3), (max(u.value) filter (where r.stat = 4))::bigint,
        max(u.value) filter (where r.stat = 5)
    from quantum_series s
    join quantum_rollups r on r.series_id = s.id
    cross join lateral quantum_unpack(row(
        r.start_ts, r.end_ts, r.series_id, r.n, r.t_step, r.t_unit, r.t_width, r.t_data, r.v_base, r.v_step,
        r.v_unit, r.v_width, r.v_data, r.divisor, r.odd_at, r.odd)::quantum_chunks) u
    where r.start_ts >= date_trunc('day', since at time zone 'UTC') at time zone 'UTC' and r.start_ts <= until
        and u."time" >= since and u."time" <= until
    group by s.id, s.name, s.labels, u."time"
$$;

create or replace view quantum_metrics_5m as
select * from quantum_metrics_5m_between('-infinity', 'infinity');
