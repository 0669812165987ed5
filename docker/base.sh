#!/usr/bin/env bash
# Makes stand-ins for the public base images, for machines where none can be pulled: a Debian by debootstrap with the static shells, and on it
# this machine's Rust toolchain with the crates of Cargo.lock. base.sh RUST_IMAGE DEBIAN_IMAGE [CLIENTS_IMAGE] are their names. The third, which only
# `make docker-base-clients` asks for, has what the clients of compat-tests are built with.
set -euo pipefail
cd "$(dirname "$0")/.."
rust="$1" debian="$2" clients="${3:-}" work="$PWD/target/docker"
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
lock=$(sha256sum Cargo.lock | cut -c1-16)
if [ "$(docker image inspect -f '{{index .Config.Labels "lock"}}' "$rust" 2>/dev/null)" != "$lock" ]; then
    rm -rf "$work/rust"
    mkdir -p "$work/rust/toolchain" "$work/rust/cargo"
    sysroot=$(rustc --print sysroot)
    cp -a "$sysroot/bin" "$sysroot/lib" "$work/rust/toolchain/"
    cargo vendor --locked --quiet "$work/rust/vendor" >/dev/null
    printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "/vendor"\n' >"$work/rust/cargo/config.toml"
    printf 'FROM %s\nLABEL lock=%s\nCOPY toolchain /usr/local/rust\nCOPY cargo /usr/local/cargo\nCOPY vendor /vendor\nENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo\n' \
        "$debian" "$lock" >"$work/rust/Dockerfile"
    docker build -q -t "$rust" "$work/rust"
    rm -rf "$work/rust"
fi
if [ -n "$clients" ] && ! docker image inspect "$clients" >/dev/null 2>&1; then
    rm -rf "$work/clients"
    mkdir -p "$work/clients/certificates"
    # Registries may be reached through a proxy that this machine trusts.
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$work/clients/certificates/" \;
    cp -a "$(go env GOROOT)" "$work/clients/go"
    mkdir -p "$work/clients/rust"
    sysroot=$(rustc --print sysroot)
    cp -a "$sysroot/bin" "$sysroot/lib" "$work/clients/rust/"
    cat >"$work/clients/Dockerfile" <<END
FROM $debian
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates python3-venv python3-dev openjdk-17-jdk-headless maven nodejs npm make g++ cmake pkg-config git \
    && rm -rf /var/lib/apt/lists
COPY certificates /usr/local/share/ca-certificates
RUN update-ca-certificates
COPY go /usr/local/go
COPY rust /usr/local/rust
ENV PATH=/usr/local/go/bin:/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
END
    docker build -q -t "$clients" "$work/clients"
    rm -rf "$work/clients"
fi
