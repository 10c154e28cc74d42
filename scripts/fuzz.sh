#!/usr/bin/env bash
# Property-based requests made from /openapi.json of a running api by schemathesis, which nobody here wrote: anonymous, as a customer and as
# an admin, with every check: no 5xx, no status or body that is not documented. Then only wrong requests, by a new customer and
# an admin: nothing may be stored by them. Exit code 1 on a finding.
#
# Usage: scripts/fuzz.sh URL FIRSTCOME [EXAMPLES] [SEED]   FIRSTCOME: the binary, to make tokens (FIRSTCOME_DATA_DIR)
set -euo pipefail
cd "$(dirname "$0")/.."

url=$1 firstcome=$2 examples=${3:-400} seed=${4:-$RANDOM}
phases=${PHASES:-examples,coverage,fuzzing}
tool=target/test-tools/python/bin/schemathesis
[ -x "$tool" ] || { echo "fuzz: schemathesis is missing: scripts/setup.sh --test installs it" >&2; exit 1; }
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
failed=0 total=0

token() { # roles...
    local id roles=()
    id=$(cat /proc/sys/kernel/random/uuid)
    for role in "$@"; do roles+=(--role "$role"); done
    $firstcome token --customer "$id" --ttl 2h "${roles[@]}"
}

run() { # name, mode, phases, token
    local header=() report="$reports/$1" generated
    [ -z "$4" ] || header=(--header "Authorization: Bearer $4")
    if ! "$tool" --config-file tests/schemathesis.toml run "$url/openapi.json" "${header[@]}" --checks all --mode "$2" --phases "$3" \
        --max-examples "$examples" --seed "$seed" --continue-on-failure --no-color >"$report" 2>&1; then
        failed=1
        sed -n '/= FAILURES =\|= ERRORS =/,$p' "$report"
    fi
    generated=$(sed -nE 's/^ *([0-9]+) generated.*/\1/p' "$report" | tail -1)
    [ -n "$generated" ] || { cat "$report"; echo "fuzz: $1: schemathesis did not run" >&2; exit 1; }
    total=$((total + generated))
    echo "fuzz: $1: $generated requests, seed $seed"
}

orders_of() { curl -fsS "$url/v1/orders?limit=100" -H "Authorization: Bearer $1" | /usr/bin/python3 -c 'import json, sys; print(len(json.load(sys.stdin)["items"]))'; }

run anonymous all "$phases" ""
run customer all "$phases" "$(token customer)"
run admin all "$phases" "$(token customer admin)"
wrong=$(token customer)
run "wrong requests" negative fuzzing "$wrong"
stored=$(orders_of "$wrong")
if [ "$stored" != 0 ]; then
    echo "fuzz: $stored orders were stored by requests that are wrong" >&2
    failed=1
fi
echo "fuzz: $total requests in all"
exit $failed
