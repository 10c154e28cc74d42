#!/usr/bin/env bash
# Which package uses which, from cargo itself: writes docs/crates.md. With --check it compares instead. Either way it refuses edges
# that the architecture rules out.
set -euo pipefail
cd "$(dirname "$0")/.."

edges() {
    cargo tree --quiet --locked --workspace --edges normal --depth 1 --prefix depth --no-dedupe |
        awk '/^0/ { from = substr($1, 2) } /^1/ { print from, substr($1, 2), ($3 ~ /^\(\//) ? "ours" : "theirs" }' |
        LC_ALL=C sort -u
}

all=$(edges)
ours=$(awk '$3 == "ours" { print $1, $2 }' <<<"$all")
failed=0
refuse() {
    echo "crate-graph: $1" >&2
    failed=1
}

while read -r from to; do
    case "$from $to" in
        "firstcome "* | "system-tests testkit" | "system-tests order-orchestrator") ;;
        "simulation order-orchestrator" | "simulation stock-worker" | "simulation payment-worker") ;;
        "sagactl order-orchestrator" | "sagactl stock-worker" | "sagactl payment-worker" | "sagactl api") ;;
        *" api" | *" order-orchestrator" | *" stock-worker" | *" payment-worker")
            refuse "$from depends on the service $to: services meet on topics only"
            ;;
        *" firstcome" | *" load-test" | *" system-tests" | *" testkit")
            refuse "$from depends on $to, which is for developers"
            ;;
    esac
done <<<"$ours"
while read -r from to _; do
    case "$from $to" in
        "kafka-cluster rdkafka" | "messaging rdkafka" | "local-stack rdkafka" | "load-test rdkafka") ;;
        *" rdkafka") refuse "$from depends on rdkafka: services reach kafka through messaging" ;;
    esac
done <<<"$all"
[ "$failed" = 0 ] || exit 1

page() {
    cat <<'END'
# Packages

Generated from `cargo tree` by `make docs`; `make lint` fails when it is not current.

An arrow means "uses". What follows from other arrows is left out. Test dependencies are not shown.

```mermaid
graph TD
END
    awk '
        { uses[$1, $2] = 1; reaches[$1, $2] = 1; names[$1] = 1; names[$2] = 1 }
        END {
            for (via in names) for (from in names) for (to in names)
                if ((from, via) in reaches && (via, to) in reaches) reaches[from, to] = 1
            for (edge in uses) {
                split(edge, ends, SUBSEP); shown = 1
                for (via in names)
                    if ((ends[1], via) in uses && (via, ends[2]) in reaches) shown = 0
                if (shown) print "    " ends[1] " --> " ends[2]
            }
        }' <<<"$ours" | LC_ALL=C sort
    printf '```\n\n| Package | Uses |\n|---|---|\n'
    awk '{ if (!($1 in uses)) order[++count] = $1; uses[$1] = uses[$1] (uses[$1] == "" ? "" : ", ") $2 }
        END { for (n = 1; n <= count; n++) print "| " order[n] " | " uses[order[n]] " |" }' <<<"$ours"
}

if [ "${1:-}" = --check ]; then
    if ! diff -u docs/crates.md <(page); then
        echo "crate-graph: docs/crates.md is not current: run \`make docs\`" >&2
        exit 1
    fi
    echo "crate-graph: docs/crates.md is current, no edge that is ruled out"
else
    page >docs/crates.md
fi
