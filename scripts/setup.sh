#!/usr/bin/env bash
# Says what is missing on this machine and why it is needed, then installs it with apt. Does nothing, quickly, when all is there.
#
#   scripts/setup.sh          what `make up` needs
#   scripts/setup.sh --lint   and what only `make lint` needs
#   scripts/setup.sh --test   and what only the tests need
set -euo pipefail

for_lint=false
[ "${1:-}" = "--lint" ] && for_lint=true
for_tests=false
[ "${1:-}" = "--test" ] && for_tests=true

packages=()

# need PACKAGE... WHY: remembers packages, and says why.
need() {
    local why="${*: -1}"
    local wanted=("${@:1:$#-1}")
    packages+=("${wanted[@]}")
    printf '  %-28s %s\n' "${wanted[*]}" "$why"
}

have() { command -v "$1" >/dev/null 2>&1; }

java_is_new_enough() {
    local java="java" major
    [ -n "${JAVA_HOME:-}" ] && java="$JAVA_HOME/bin/java"
    major=$("$java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1) || return 1
    [ -n "$major" ] && [ "$major" -ge 17 ]
}

has_postgres() {
    have initdb && have postgres && return 0
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

missing() {
    have cc || need gcc "compiles the C parts of the Kafka client and of the TLS library"
    have c++ || need g++ "compiles the C++ part of the Kafka client"
    have make || need make "builds the Kafka client"
    have perl || need perl "builds the TLS library"
    have pkg-config || need pkg-config "finds libraries while the Kafka client is built"
    [ -e /usr/include/openssl/ssl.h ] || pkg-config --exists openssl 2>/dev/null || need libssl-dev "lets the Kafka client speak TLS"
    has_postgres || need postgresql "the services' databases; a private server is started from it"
    have redis-server || need redis-server "the cache; a private server is started from it"
    if ! java_is_new_enough; then
        if [ "$(apt-cache policy default-jre-headless 2>/dev/null | sed -nE 's/.*Candidate: [0-9]+:1\.([0-9]+).*/\1/p')" -ge 17 ] 2>/dev/null; then
            need default-jre-headless "runs Kafka, which needs Java 17 or newer"
        else
            need openjdk-17-jre-headless "runs Kafka, which needs Java 17 or newer"
        fi
    fi
    [ -n "${KAFKA_HOME:-}" ] || have mvn || need maven "fetches Kafka's published jars (or set KAFKA_HOME to an unpacked Kafka 4)"
    have setsid && have setpriv || need util-linux "starts servers as another user, and in the background"
    if $for_lint || $for_tests; then
        have openssl || need openssl "makes secrets and certificates (lint, test)"
    fi
    if $for_lint; then
        /usr/bin/python3 -c 'import yaml' 2>/dev/null || need python3-yaml "reads compose.yaml (lint)"
    fi
    if $for_tests; then
        have kcat || need kcat "reads the topics as a stranger would (test)"
        /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || need python3-venv "holds the tools that judge the API's description (test)"
        /usr/bin/python3 -c 'import jsonschema' 2>/dev/null || need python3-jsonschema "validates records against the published schemas (test)"
    fi
}

if ! have cargo; then
    echo "setup: Rust is missing: install it as https://rustup.rs says, then try again" >&2
    exit 1
fi

# The tests' Python tools, in a folder of their own; made anew when the list of them has changed.
tools() {
    local folder=target/test-tools wanted=tests/requirements.txt
    cmp -s "$wanted" "$folder/installed.txt" && return 0
    echo "Installing the tools that judge the API's description into $folder"
    /usr/bin/python3 -m venv --clear "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$folder/installed.txt"
}

cd "$(dirname "$0")/.."
report=$(mktemp)
trap 'rm -f "$report"' EXIT
missing >"$report"
if [ ${#packages[@]} -eq 0 ]; then
    if $for_tests; then tools; fi
    exit 0
fi

echo "Missing on this machine:"
cat "$report"

if ! have apt-get; then
    echo "setup: this machine has no apt-get: install the above, or what your distribution calls it, by hand" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=(sudo)
    else
        echo "setup: no rights to install: ask an administrator to run: apt-get install --yes --no-install-recommends ${packages[*]}" >&2
        exit 1
    fi
fi
echo "Installing: ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
install() { "${as_root[@]}" apt-get install --yes --no-install-recommends -qq "${packages[@]}" </dev/null; }
# Package lists may be old or absent: then once more with fresh ones.
if ! install >/dev/null 2>&1; then
    "${as_root[@]}" apt-get update -qq </dev/null
    if ! install >/dev/null; then
        echo "setup: apt-get could not install ${packages[*]}; its words are above" >&2
        exit 1
    fi
fi
if $for_tests; then tools; fi
