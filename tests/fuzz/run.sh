#!/usr/bin/env bash
# Runs the fuzz targets, two at once: run.sh TARGET SECONDS, of which an empty target is all. What they find new goes to target/fuzz-corpus.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="$1" seconds="$2"
command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
# Without the address sanitizer, which doubles the time to build: what is looked for are panics, wrong answers and much memory.
cargo +nightly fuzz build --sanitizer none --fuzz-dir tests/fuzz --target-dir target/fuzz $target
one() {
    mkdir -p "target/fuzz-corpus/$1" "target/fuzz-artifacts"
    target/fuzz/x86_64-unknown-linux-gnu/release/"$1" "target/fuzz-corpus/$1" "tests/fuzz/corpus/$1" -max_total_time="$2" -timeout=10 \
        -rss_limit_mb=512 -artifact_prefix=target/fuzz-artifacts/ >"target/fuzz-corpus/$1.log" 2>&1 \
        || { echo "$1 found something:"; tail -n 40 "target/fuzz-corpus/$1.log"; return 1; }
    echo "$1: $(grep -E '^Done' "target/fuzz-corpus/$1.log")"
}
export -f one
if [ -n "$target" ]; then
    one "$target" "$seconds"
else
    cargo +nightly fuzz list --fuzz-dir tests/fuzz | xargs -P 2 -I{} bash -c 'one "$@"' _ {} "$seconds"
fi
