#!/usr/bin/env bash
# What a saga costs: CPU of each server and service, bytes on each topic's log, bytes of PostgreSQL's write-ahead log. Runs
# `load-test sagas` against a system that runs with a process for each service, and prints the differences per order.
#
#     make up ARGS="--detach --separate --no-catalogue"
#     scripts/cost.sh 20000                    # the same again, for a broker that is warm
set -euo pipefail
cd "$(dirname "$0")/.."

orders=${1:-20000}
data=${DATA:-.firstcome}
load=${LOAD_TEST:-target/release/load-test}
[ -f "$data/endpoints.json" ] || { echo "cost: $data/endpoints.json is not there; start the system, or set DATA" >&2; exit 2; }
[ -x "$load" ] || { echo "cost: $load is not there; build it with: cargo build --release -p load-test" >&2; exit 2; }
hertz=$(getconf CLK_TCK)
postgres=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["postgres"]["api"][0])' "$data/endpoints.json")

# Ticks of a process, of those it has reaped, and of its living descendants.
ticks() {
    local own child sum
    own=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '{ print $12 + $13 + $14 + $15 }') || own=0
    sum=${own:-0}
    for child in $(pgrep -P "$1" || true); do
        sum=$((sum + $(ticks "$child")))
    done
    echo "$sum"
}

# Lines of: what, amount.
snapshot() {
    local file name topic bytes
    for file in "$data"/run/*.pid; do
        name=$(basename "$file" .pid)
        case $name in ready | up) continue ;; esac
        echo "cpu:$name $(($(ticks "$(head -1 "$file")") * 1000000 / hertz))"
    done
    for topic in $(ls "$data/kafka" | sed -nE 's/^([a-z-]+)-[0-9]+$/\1/p' | grep -v '^__' | sort -u); do
        bytes=$(cat "$data/kafka/$topic"-[0-9]*/*.log | wc -c)
        echo "log:$topic $bytes"
    done
    echo "wal:postgres $(psql "$postgres" -Atc "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")"
    echo "stored:postgres $(psql "$postgres" -Atc 'SELECT sum(pg_database_size(datname)) FROM pg_database')"
}

before=$(snapshot)
"$load" --endpoints "$data/endpoints.json" sagas --orders "$orders"
# What the read model and the outboxes do behind the last event belongs to it.
sleep 3
after=$(snapshot)
join <(sort <<<"$before") <(sort <<<"$after") | awk -v orders="$orders" '
    BEGIN { unit["cpu"] = "us of CPU"; unit["log"] = "bytes on the log"; unit["wal"] = "bytes of WAL"; unit["stored"] = "bytes in databases" }
    { split($1, what, ":"); per = ($3 - $2) / orders; sum[what[1]] += per
      printf "%-28s %10.0f %s per order\n", what[2], per, unit[what[1]] }
    END { for (kind in sum) printf "%-28s %10.0f %s per order\n", "all", sum[kind], unit[kind] }'
