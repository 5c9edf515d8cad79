#!/bin/sh
# Run once, when the database is created: a role for Grafana that may read everything and change nothing.
set -eu
psql --variable=ON_ERROR_STOP=1 --variable=password="$GRAFANA_DB_PASSWORD" \
    --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
create role grafana login password :'password';
alter role grafana set default_transaction_read_only = on;
alter role grafana set statement_timeout = '30s';
alter role grafana set jit = off;
grant pg_read_all_data, pg_monitor to grafana;
create extension if not exists pg_stat_statements;
SQL
