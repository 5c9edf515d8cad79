-- Calls to upstream providers that several exporters make under one limit: a log of send times, each given by
-- this database's clock, so that the limit holds in every window whoever calls.

create table if not exists quantum_quota_sends (
    id     bigint primary key generated always as identity,
    scope  text not null,
    at     timestamptz not null,
    holder text not null
);
comment on table quantum_quota_sends is 'sends of the longest window and slots already given for the near future';
comment on column quantum_quota_sends.scope is 'provider, and a fingerprint of its key';

create index if not exists idx_quantum_quota_sends_at on quantum_quota_sends (scope, at);

-- Gives a slot: when the call may go out (seconds from now, 0 for at once). Beyond within_s none is taken and
-- id is null. A slot that was not used in time goes back with `replaces`. Of n calls in a window the
-- next is one window after the n-th last, those in the future among them: then no window holds more.
create or replace function quantum_quota_claim(
    in_scope text, by_holder text, periods double precision[], limits integer[], within_s double precision,
    replaces bigint, given_now timestamptz, out id bigint, out wait_s double precision, out holders integer
) language plpgsql as $$
declare
    moment timestamptz;
    due timestamptz;
    blocking timestamptz;
begin
    perform pg_advisory_xact_lock(1903522165, hashtext(in_scope));
    moment := coalesce(given_now, clock_timestamp());
    delete from quantum_quota_sends q where q.scope = in_scope and (q.id = replaces
        or q.at < moment - make_interval(secs => (select max(p) from unnest(periods) p)));
    due := moment;
    for n in 1 .. cardinality(limits) loop
        select q.at into blocking from quantum_quota_sends q
        where q.scope = in_scope order by q.at desc offset limits[n] - 1 limit 1;
        if found then
            due := greatest(due, blocking + make_interval(secs => periods[n]));
        end if;
    end loop;
    wait_s := extract(epoch from due - moment);
    if wait_s <= within_s then
        insert into quantum_quota_sends (scope, at, holder) values (in_scope, due, by_holder)
        returning quantum_quota_sends.id into quantum_quota_claim.id;
    end if;
    select count(distinct q.holder) into holders from quantum_quota_sends q where q.scope = in_scope;
end $$;
