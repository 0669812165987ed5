#!/bin/sh
# Lays out the image's root: the shells, their tools, and the directories that brokers and start scripts write to.
set -eu
cd "$1"
mkdir -p bin usr/bin tmp
cp /bin/bash-static bin/bash
cp /bin/busybox bin/busybox
ln -s bash bin/sh
for tool in awk base64 basename cat chmod chown cp cut date dirname du echo env expr false find grep head hostname id ip kill ln ls md5sum mkdir mktemp mv \
    nc nslookup ping printf ps pwd readlink realpath rm rmdir sed seq sha256sum sleep sort stat sync tail tar tee test timeout touch tr true uname uniq \
    vi wc wget which whoami xargs; do
    ln -s busybox "bin/$tool"
done
ln -s ../../bin/env usr/bin/env
ln -s ../../bin/bash usr/bin/bash
# Kafka's tools that start scripts and health checks call, where images have them.
mkdir -p opt/kafka/bin opt/bitnami/kafka/bin
for tool in kafka-topics kafka-console-consumer kafka-console-producer kafka-broker-api-versions cub; do
    printf '#!/bin/bash\nexec dlog %s "$@"\n' "$tool" >"usr/bin/$tool"
    chmod 0755 "usr/bin/$tool"
    [ "$tool" = cub ] && continue
    for place in usr/bin opt/kafka/bin opt/bitnami/kafka/bin; do
        ln -s "/usr/bin/$tool" "$place/$tool.sh"
    done
done
# Whoever the container runs as: volumes take over the mode of what they cover.
for place in var/lib/kafka/data var/lib/redpanda var/lib/redpanda/data bitnami/kafka/data etc/kafka/secrets mnt/shared/config etc/confluent/docker etc/kafka/docker etc/redpanda opt/kafka usr/sbin home/appuser; do
    mkdir -p "$place"
    chmod 0777 "$place"
done
chmod 1777 tmp
chmod 0777 etc/confluent/docker/*
chmod 0777 bitnami bitnami/kafka
