#!/bin/bash
# The image's entrypoint: a program is run as it is; words of dlog's command line (`serve`, `--ephemeral`) are given to dlog; `redpanda start ...`,
# `start ...` and `rpk ...` are Redpanda's contract.
set -eu
. /etc/kafka/docker/defaults
case "${1:-}" in
redpanda | rpk | start)
    # Redpanda's volume, unless settings name another directory.
    export DLOG_DEFAULT_DATA=/var/lib/redpanda/data
    ;;&
redpanda) exec dlog rpk "$@" ;;
rpk) exec dlog "$@" ;;
start) exec dlog rpk redpanda "$@" ;;
esac
# A program, and no builtin of this shell: `wait` is dlog's.
if [[ ${1:-} == */* ]] || type -P -- "${1:-}" >/dev/null; then
    exec "$@"
fi
exec dlog "$@"
