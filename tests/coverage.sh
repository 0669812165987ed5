#!/usr/bin/env bash
# Line coverage of the product without generated code, by cargo-tarpaulin (installed on first use). Fails below MIN percent.
set -euo pipefail
cd "$(dirname "$0")/.."
min=${MIN:-85}
command -v cargo-tarpaulin >/dev/null || cargo install --quiet --locked cargo-tarpaulin
# The tests of the real binary are left out: they kill it, which a tracer takes for a crash.
cargo tarpaulin --engine ptrace --workspace --skip-clean --target-dir target/coverage --out Stdout --fail-under "$min" \
  --lib --test broker --test compaction --test inspect --test administration --test http --test served --test groups --test storage_log --test golden_frames --test second_opinion --test generated_is_fresh \
  --exclude-files 'src/protocol/generated/*' 'src/records/layout.rs' 'tests/*' 'target/*' 'compat-tests/*' --timeout 300
