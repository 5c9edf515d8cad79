-- migrate: no transaction
-- The platform's own table: where it exists it stays as it is; the exporter needs the id only.

create table if not exists users (
    id         uuid primary key default gen_random_uuid(),
    created_at timestamptz not null default now()
);

-- Columns that a table lacks are added one by one; existing ones are never changed. Looks before it alters,
-- because ALTER TABLE takes its lock even where there is nothing to do.
create or replace function quantum_add_missing_columns(target regclass, columns text[]) returns integer
language plpgsql as $$
declare
    definition text;
    added integer := 0;
begin
    if (select relkind from pg_class where oid = target) not in ('r', 'p') then
        return 0;  -- a view of that name: not ours to alter
    end if;
    foreach definition in array columns loop
        if not exists (
            select from pg_attribute
            where attrelid = target and attname = split_part(definition, ' ', 1) and not attisdropped
        ) then
            execute format('alter table %s add column %s', target, definition);
            added := added + 1;
        end if;
    end loop;
    return added;
end $$;

create or replace function quantum_set_updated_at() returns trigger
language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end $$;

-- Makes the trigger that keeps updated_at, unless the table has one that does so already.
create or replace function quantum_ensure_updated_at(target regclass) returns boolean
language plpgsql as $$
begin
    if (select relkind from pg_class where oid = target) not in ('r', 'p') or exists (
        select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
        where t.tgrelid = target and not t.tgisinternal
            and t.tgtype & 19 = 19  -- row-level, before, update
            and p.prosrc ilike '%updated_at%'
    ) then
        return false;
    end if;
    execute format(
        'create trigger quantum_updated_at before update on %s for each row '
        'execute function quantum_set_updated_at()', target
    );
    return true;
end $$;
