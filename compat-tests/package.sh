#!/usr/bin/env bash
# The Debian package in a fresh container: package.sh IMAGE FOLDER. It installs, its unit is sound, what it starts says READY, and nothing is left when it is purged.
set -euo pipefail
image=$1 folder=$(cd "$2" && pwd)
docker run --rm -v "$folder:/packages:ro" "$image" bash -euc '
    apt-get update -qq
    apt-get install -y -qq man-db bash-completion systemd socat wget >/dev/null
    apt-get install -y -qq /packages/dlog_*.deb >/dev/null
    systemd-analyze verify /lib/systemd/system/dlog.service
    man -w dlog dlog-serve dlog-doctor >/dev/null
    bash -c "source /usr/share/bash-completion/completions/dlog && complete -p dlog" >/dev/null
    [[ -L /etc/systemd/system/multi-user.target.wants/dlog.service ]] || { echo "the unit is not enabled"; exit 1; }
    # What the unit would start, with a service manager that only listens.
    mkdir -p /var/lib/dlog
    socat -u UNIX-RECV:/run/told CREATE:/run/words & sleep 0.3
    NOTIFY_SOCKET=/run/told $(sed -n s/^ExecStart=//p /lib/systemd/system/dlog.service) >/var/log/dlog.log & broker=$!
    for _ in $(seq 100); do grep -q READY=1 /run/words 2>/dev/null && break; sleep 0.1; done
    grep -q READY=1 /run/words
    dlog health
    kill $broker; wait $broker
    apt-get purge -y -qq dlog >/dev/null
    [[ ! -e /usr/bin/dlog && ! -e /etc/dlog && ! -e /lib/systemd/system/dlog.service ]]
'
echo "the package installs, starts and goes"
