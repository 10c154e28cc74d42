#!/usr/bin/env bash
# Every load scenario against a system of its own, which begins empty and is taken down again whatever happens. Arguments are
# those of `load-test report`.
set -euo pipefail
cd "$(dirname "$0")/.."

home=target/report-system
firstcome=target/release/firstcome
down() { "$firstcome" down --data-dir "$home" >&2; }

# A run that was killed may have left one behind.
down
"$firstcome" reset --data-dir "$home" --yes >&2
trap down EXIT
"$firstcome" up --data-dir "$home" --detach --port 0 --no-catalogue >&2
target/release/load-test --endpoints "$home/endpoints.json" report "$@"
