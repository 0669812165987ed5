#!/usr/bin/env bash
# Line coverage of the product without generated code, by cargo-tarpaulin (installed on first use). Fails below MIN percent.
set -euo pipefail
cd "$(dirname "$0")/.."
min=${MIN:-85}
command -v cargo-tarpaulin >/dev/null || cargo install --quiet --locked cargo-tarpaulin
cargo tarpaulin --engine ptrace --workspace --follow-exec --skip-clean --target-dir target/coverage --out Stdout --fail-under "$min" \
  --exclude-files 'src/protocol/generated/*' 'src/records/layout.rs' 'tests/*' 'target/*' 'compat-tests/*' --timeout 300
