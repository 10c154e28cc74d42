#!/usr/bin/env bash
# Run once by the PostgreSQL image, when its volume is empty: a role and a database for each service, which nobody else
# can connect to. Name and password are in the service's own settings file.
set -euo pipefail
settings=${SETTINGS:-/run/secrets}
for name in orchestrator stock payment api; do
    password=$(sed -nE "s|^database_url = \"postgres://$name:([0-9a-f]+)@.*|\1|p" "$settings/$name.toml")
    if [ -z "$password" ]; then
        echo "databases: $settings/$name.toml has no database_url with a password for $name" >&2
        exit 1
    fi
    # Through standard input, where \getenv and variables work, and no process list shows the password.
    PASSWORD=$password psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
        --set name="$name" <<'SQL'
\getenv password PASSWORD
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
