#!/bin/bash
# What `redpanda start ...` or `start ...` is given becomes Kafka's settings; anything else is run as it is.
# The listeners come from --kafka-addr and --advertise-kafka-addr (NAME://HOST:PORT, ...), or from /etc/redpanda/redpanda.yaml.
set -eu
case "${1:-}" in
redpanda | rpk) shift ;;
start) ;;
*) exec "$@" ;;
esac
[ "${1:-}" = redpanda ] && shift
[ "${1:-}" = start ] && shift

# The addresses of a list in redpanda.yaml, as NAME://ADDRESS:PORT with commas.
addresses() {
    [ -f /etc/redpanda/redpanda.yaml ] || return 0
    awk -v wanted="$1:" '
        function put() { if (port != "") out = out (out == "" ? "" : ",") (name == "" ? "PLAINTEXT" : name) "://" address ":" port; name = address = port = "" }
        { match($0, /^ */); depth = RLENGTH; line = $0; sub(/^ *(- *)?/, "", line); item = $0 ~ /^ *- / }
        line == wanted { inside = 1; at = depth; next }
        inside && !item && line != "" && depth <= at { inside = 0 }
        inside && item { put() }
        inside { value = line; sub(/^[^:]*: */, "", value); gsub(/["\x27]/, "", value)
                 if (line ~ /^address:/) address = value; if (line ~ /^name:/) name = value; if (line ~ /^port:/) port = value }
        END { put(); print out }' /etc/redpanda/redpanda.yaml
}
listeners=$(addresses kafka_api) advertised=$(addresses advertised_kafka_api)
while [ $# -gt 0 ]; do
    flag=${1%%=*} value=${1#*=}
    case "$flag" in
    --kafka-addr | --advertise-kafka-addr)
        [ "$flag" = "$1" ] && { shift; value=${1:-}; }
        [ "$flag" = --kafka-addr ] && listeners=$value || advertised=$value ;;
    esac
    [ $# -gt 0 ] && shift
done
# Listeners may be named as one likes; all are without TLS.
map=
for word in ${listeners//,/ }; do
    case "$word" in *://*) map="$map${map:+,}${word%%://*}:PLAINTEXT" ;; esac
done
[ -z "$listeners" ] || export KAFKA_LISTENERS="$listeners"
[ -z "$advertised" ] || export KAFKA_ADVERTISED_LISTENERS="$advertised"
[ -z "$map" ] || export KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="$map"
# The lines for which start scripts wait.
(
    until /etc/kafka/docker/health 2>/dev/null; do sleep 0.05; done
    echo "Started Kafka API server listening at ${KAFKA_LISTENERS:-0.0.0.0:9092}"
    echo "Successfully started Redpanda!"
) &
exec /etc/kafka/docker/run
