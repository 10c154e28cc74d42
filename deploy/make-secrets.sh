#!/usr/bin/env bash
# Makes the passwords, the services' settings files and the key that tokens are signed with; once.
#
#   deploy/make-secrets.sh [FOLDER]     default: deploy/secrets
#
# The folder is closed to others, the files in it are readable: a container's user, whoever that is, must read them.
set -euo pipefail
folder=${1:-$(dirname "$0")/secrets}
if [ -e "$folder" ]; then
    echo "make-secrets: $folder is there already; the databases know its passwords, so nothing was changed" >&2
    exit 1
fi
command -v openssl >/dev/null || { echo "make-secrets: openssl is missing: apt-get install openssl" >&2; exit 1; }

# Complete or not there: an interrupted run leaves nothing that looks finished.
new="$folder.new"
rm -rf "$new"
mkdir -m 700 "$new"
umask 022
password() { openssl rand -hex 24; }

password >"$new/postgres-password"
password >"$new/grafana-password"
for database in orchestrator stock payment api; do
    printf 'database_url = "postgres://%s:%s@postgres:5432/%s"\n' "$database" "$(password)" "$database" >"$new/$database.toml"
done

# Ed25519: the api gets the public half only. The private one is for whoever issues tokens; no container has it.
(umask 077 && openssl genpkey -algorithm ed25519 -out "$new/token-key.pem")
public=$(openssl pkey -in "$new/token-key.pem" -pubout | awk '{ printf "%s\\n", $0 }')
printf '{"keys": [{"kid": "%s", "alg": "EdDSA", "public_key": "%s"}]}\n' "key-$(date -u +%Y-%m-%d)" "$public" >"$new/keys.json"
mv "$new" "$folder"
echo "made $folder; keep it out of version control, and a copy of it somewhere safe"
