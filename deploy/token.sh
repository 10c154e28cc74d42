#!/usr/bin/env bash
# Prints an access token, valid for an hour, signed with the key that make-secrets.sh made.
#
#   deploy/token.sh CUSTOMER_UUID [ROLE]     ROLE: customer (default) or admin
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
secrets=${SECRETS:-$(dirname "$0")/secrets}
if [ ! -r "$secrets/token-key.pem" ]; then
    echo "token: $secrets/token-key.pem can't be read; deploy/make-secrets.sh makes it" >&2
    exit 1
fi
kid=$(sed -nE 's/.*"kid": "([^"]+)".*/\1/p' "$secrets/keys.json")
now=$(date +%s)
base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
unsigned=$(mktemp)
trap 'rm -f "$unsigned"' EXIT
header=$(printf '{"alg":"EdDSA","typ":"JWT","kid":"%s"}' "$kid" | base64url)
claims=$(printf '{"sub":"%s","roles":["%s"],"iss":"firstcome","aud":"firstcome-api","iat":%d,"exp":%d}' \
    "$1" "${2:-customer}" "$now" "$((now + 3600))" | base64url)
printf '%s.%s' "$header" "$claims" >"$unsigned"
signature=$(openssl pkeyutl -sign -rawin -inkey "$secrets/token-key.pem" -in "$unsigned" | base64url)
printf '%s.%s\n' "$(cat "$unsigned")" "$signature"
