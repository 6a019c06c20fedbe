#!/bin/bash
# Runs once, when the volume is new: creates for each service a database, an owner that migrates it,
# and a role that works in it and reaches nothing else. The auditor reads all of them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/services"
sql() { psql --username postgres --no-psqlrc --quiet -v ON_ERROR_STOP=1 "$@"; }
passwords=${PASSWORDS:-/run/reel/passwords.sql}

sql --dbname postgres <<END
\i $passwords
create role auditor login password :'auditor' in role pg_read_all_data;
revoke connect, temporary on database postgres, template1 from public;
END
for service in $services; do
    sql --dbname postgres <<END
\i $passwords
create role "${service}_owner" login password :'${service}_owner';
create role "$service" login password :'$service';
create database "$service" owner "${service}_owner";
revoke all on database "$service" from public;
grant connect on database "$service" to "$service", auditor;
END
    sql --dbname "$service" <<END
alter default privileges for role "${service}_owner" grant usage on schemas to "$service";
alter default privileges for role "${service}_owner"
    grant select, insert, update, delete on tables to "$service";
alter default privileges for role "${service}_owner"
    grant usage, select, update on sequences to "$service";
END
done
