#!/usr/bin/env bash
# Makes stand-ins for the public base images, for machines where none can be pulled: a Debian by debootstrap with the static shells, and on it
# this machine's Rust toolchain with the crates of Cargo.lock. base.sh RUST_IMAGE DEBIAN_IMAGE are the names that they get.
set -euo pipefail
cd "$(dirname "$0")/.."
rust="$1" debian="$2" work="$PWD/target/docker"
for tool in debootstrap docker; do
    command -v "$tool" >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap docker.io; }
done
mkdir -p "$work"
if ! docker image inspect "$debian" >/dev/null 2>&1; then
    rm -rf "$work/debian"
    debootstrap --variant=minbase --include=gcc,libc6-dev,bash-static,busybox-static bookworm "$work/debian" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    tar -C "$work/debian" -c . | docker import - "$debian"
    rm -rf "$work/debian"
fi
if ! docker image inspect "$rust" >/dev/null 2>&1; then
    rm -rf "$work/rust"
    mkdir -p "$work/rust/toolchain" "$work/rust/cargo"
    sysroot=$(rustc --print sysroot)
    cp -a "$sysroot/bin" "$sysroot/lib" "$work/rust/toolchain/"
    cargo vendor --locked --quiet "$work/rust/vendor" >/dev/null
    printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "/vendor"\n' >"$work/rust/cargo/config.toml"
    printf 'FROM %s\nCOPY toolchain /usr/local/rust\nCOPY cargo /usr/local/cargo\nCOPY vendor /vendor\nENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo\n' \
        "$debian" >"$work/rust/Dockerfile"
    docker build -q -t "$rust" "$work/rust"
    rm -rf "$work/rust"
fi
