#!/usr/bin/env bash
# Allows each service what it needs in a Kafka with an authorizer, and nothing else. Users are named like the services; `operator` is
# for sagactl. A repeat changes nothing.
#
#   deploy/kafka-acls.sh HOST:PORT [OPTION...]     options go to kafka-acls.sh, e.g. --command-config admin.properties
#
# KAFKA_ACLS names the program; without it kafka-acls.sh of a Kafka distribution must be on the PATH.
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
brokers=$1
shift
options=("$@")
read -ra acls <<<"${KAFKA_ACLS:-kafka-acls.sh}"
command -v "${acls[0]}" >/dev/null || { echo "kafka-acls: ${acls[0]} is not there; put Kafka's bin folder on the PATH" >&2; exit 1; }

# allow USER OPERATION RESOURCE...: topics as they are, consumer groups as group:NAME.
allow() {
    local user=$1 operation=$2 resources=() resource
    for resource in "${@:3}"; do
        case $resource in
        group:*) resources+=(--group "${resource#group:}") ;;
        *) resources+=(--topic "$resource") ;;
        esac
    done
    "${acls[@]}" --bootstrap-server "$brokers" ${options[@]+"${options[@]}"} --add --allow-principal "User:$user" \
        --operation "$operation" "${resources[@]}" >/dev/null
    echo "$user may $operation ${*:3}"
}

# What a service writes it may also describe, which is how it looks for the broker. Offsets are kept in its database: of its consumer
# group it needs the membership alone.
allow order-orchestrator Read order-saga dead-letters group:order-orchestrator
allow order-orchestrator Write order-saga stock-commands payment-commands order-events dead-letters
allow stock-worker Read stock-commands stock-levels dead-letters group:stock-worker
allow stock-worker Write order-saga stock-events stock-levels dead-letters
allow payment-worker Read payment-commands dead-letters group:payment-worker
allow payment-worker Write order-saga dead-letters
# With another `consumer_group` in the api's settings the groups' names begin with that.
allow api Read order-events stock-events stock-levels dead-letters \
    group:api-order-events group:api-stock-levels group:api-stock-events group:api-admission group:api-notices
allow api Write order-saga stock-commands dead-letters
allow operator Read order-saga stock-commands payment-commands order-events stock-events stock-levels dead-letters
# Commands to sagas, and control records for what is parked, each in the topic it is about.
allow operator Write order-saga stock-commands payment-commands order-events stock-events
