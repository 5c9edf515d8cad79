-- migrate: no transaction
-- The expiry checks out of the index alone. The planner thinks that all active trades are overdue, as nearly all
-- trades are, and then any index in the order of the table looked cheaper than this one with its way to each row.

do $$
begin
    if exists (
        select from pg_index where indexrelid = to_regclass('idx_btc_trades_expires_status')
            and indrelid = to_regclass('btc_trades') and indnatts = 2
    ) then
        alter index idx_btc_trades_expires_status rename to idx_btc_trades_expires_status_bare;
    end if;
end $$;

-- active trades that are due to expire
create index concurrently if not exists idx_btc_trades_expires_status
    on btc_trades (expires_at, status) include (id, user_id) where status = 'ACTIVE';

drop index concurrently if exists idx_btc_trades_expires_status_bare;
