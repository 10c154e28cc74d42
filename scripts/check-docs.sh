#!/usr/bin/env bash
# What the documents name must exist: linked files, files and folders in backticks, tests, make targets, a test for each promise
# and crash window (tables with a column "Test"), a test for each risk of docs/security.md, and a package's mention of each topic
# that `schemas` says it reads or writes.
set -euo pipefail
cd "$(dirname "$0")/.."

documents="README.md docs/scaling.md docs/chaos.md CONTRIBUTING.md docs/architecture.md docs/delivery-guarantees.md docs/glossary.md docs/topics.md docs/operations.md docs/traces.md docs/security.md docs/adr/*.md"
failed=0
wrong() {
    echo "check-docs: $1" >&2
    failed=1
}

functions=$(grep -rhoE '\bfn [a-z0-9_]+' --include='*.rs' --exclude-dir=target . | sort -u)

for document in $documents; do
    folder=$(dirname "$document")
    while read -r link; do
        [ -e "$folder/${link%%#*}" ] || wrong "$document links to $link, which is not there"
    done < <(grep -oE '\]\([^)#][^)]*\)' "$document" | sed -E 's/^\]\(//; s/\)$//' | grep -v '^https\?:' || true)
    # In backticks: a path has a slash and a known ending, a test's name has four words or more and is no metric's.
    while read -r path; do
        [ -e "$path" ] || wrong "$document names $path, which is not there"
    done < <(grep -oE '`[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+(\.(rs|sql|sh|md|toml|xml|json)|/)`' "$document" | tr -d '`' |
        grep -vE '^(target|\.firstcome)/|/TYPE\.' || true)
    while read -r test; do
        grep -qx "fn $test" <<<"$functions" || wrong "$document names the test $test, which is not there"
    done < <(grep -oE '`[a-z0-9]+(_[a-z0-9]+){3,}`' "$document" | tr -d '`' | grep -vE '_(total|seconds|state)$' || true)
    while read -r target; do
        grep -q "^$target:" Makefile || wrong "$document names make $target, which is not there"
    done < <(grep -oE '\bmake [a-z]+`' "$document" | sed -E 's/^make //; s/`$//' | sort -u || true)
done

tests=$(grep -rhE -A3 '#\[(tokio::)?test\b' --include='*.rs' --exclude-dir=target . | grep -oE '\bfn [a-z0-9_]+' | sort -u)

# Tables with a column "Test": each row names tests there, and nothing but tests. A row without a head is in no table.
rows() {
    awk -F ' *[|] *' '
        function alone() { if (head == 1) print "without a head:" first }
        !/^[|]/ { alone(); column = 0; head = 0; next }
        !head { head = 1; first = $2; for (i = 2; i < NF; i++) if ($i == "Test") column = i; next }
        head == 1 && /^[|][-|: ]+$/ { head = 2; next }
        head == 1 { alone(); head = 2 }
        column { print $2 "\t" $column }
        END { alone() }' "$1"
}
for document in docs/delivery-guarantees.md docs/architecture.md; do
    while IFS=$'\t' read -r what named; do
        case $what in "without a head:"*) wrong "$document has a row without a head: ${what#*:}" && continue ;; esac
        [[ $named == *'`'* ]] || wrong "$document names no test for: $what"
        while read -r test; do
            grep -qx "fn $test" <<<"$tests" || wrong "$document names $test, which is no test, for: $what"
        done < <(grep -oE '`[^`]+`' <<<"$named" | tr -d '`' || true)
    done < <(rows "$document")
done

# The table of risks: a row for each, and one test at its end.
for risk in API{1..10}; do
    test=$(grep -E "^\| $risk " docs/security.md | grep -oE '`[a-z0-9_]+` \|$' | tr -d '`| ' || true)
    grep -qx "fn $test" <<<"$tests" || wrong "docs/security.md has no test that is there for $risk: ${test:-none}"
done

# The topic table: a package mentions a topic exactly if it reads or writes it. Dead letters are the runtime's.
while IFS='|' read -r _ topic _ _ writers readers _; do
    topic=$(tr -d '` ' <<<"$topic")
    [ "$topic" = dead-letters ] && continue
    variant=$(sed -E 's/(^|-)(.)/\U\2/g' <<<"$topic")
    said=$(tr ', ' '\n\n' <<<"$writers $readers" | grep . | sort -u | xargs)
    found=$(grep -rl "Topic::$variant\b" --include='*.rs' api/src order-orchestrator/src stock-worker/src payment-worker/src |
        cut -d/ -f1 | sort -u | xargs)
    [ "$said" = "$found" ] || wrong "docs/topics.md says that $topic is of: $said; Topic::$variant is mentioned in: $found"
done < <(grep -E '^\| `[a-z-]+` \|' docs/topics.md | grep -E '(for ever|newest)')

[ "$failed" = 0 ] && echo "check-docs: what the documents name is there"
exit "$failed"
