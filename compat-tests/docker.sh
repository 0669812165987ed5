#!/usr/bin/env bash
# Runs the suite in containers, one client after the other, and ends with its result: docker.sh [--client NAME] [OPTIONS OF run.py].
# The base images are the public ones; where they cannot be pulled, docker/base.sh has made one stand-in for all.
set -euo pipefail
cd "$(dirname "$0")"
compose=(docker-compose -f docker-compose.yml)
docker compose version >/dev/null 2>&1 && compose=(docker compose -f docker-compose.yml)
mapfile -t clients < <("${compose[@]}" --profile clients config --services | grep -v '^dlog$')
[[ ${1:-} == --client ]] && { clients=("$2"); shift 2; }
if docker image inspect dlog-base/clients >/dev/null 2>&1; then
    export PYTHON_IMAGE=dlog-base/clients JAVA_IMAGE=dlog-base/clients GO_IMAGE=dlog-base/clients NODE_IMAGE=dlog-base/clients RUST_IMAGE=dlog-base/clients
fi
mkdir -p ../target/compat
trap '"${compose[@]}" --profile clients down -v >/dev/null 2>&1' EXIT
failed=()
for client in "${clients[@]}"; do
    "${compose[@]}" build "$client" >"../target/compat/$client.build.log" 2>&1 || { tail -n 30 "../target/compat/$client.build.log"; failed+=("$client (build)"); continue; }
    "${compose[@]}" run --rm "$client" "$@" || failed+=("$client")
done
[[ ${#failed[@]} == 0 ]] && echo "every client passes" || { echo "failed: ${failed[*]}"; exit 1; }
