#!/bin/bash
# Made with the release of November 2026 in which a broker's registration implied the leader epochs: make.sh plain KILL, make.sh snapshot TERM.
# $D is the binary of that release. epochs.json holds the leader epochs that clients saw at the end.
set -e
D=/tmp/dlog-before
A=127.0.0.1:17092
up() { nice $D serve --data /tmp/mg/d --listen $A --http 127.0.0.1:17093 --set offsets.topic.num.partitions=2 >>/tmp/mg/log 2>&1 & pid=$!; for i in $(seq 200); do $D health --bootstrap-server $A >/dev/null 2>&1 && return; sleep 0.1; done; cat /tmp/mg/log; exit 1; }
stop() { kill -${1:-TERM} $pid; wait $pid || true; }
t() { $D kafka-topics --bootstrap-server $A "$@"; }
up
t --create --topic kept --partitions 3 --config retention.ms=999999999999
t --create --topic gone --partitions 2
printf 'a\nb\nc\n' | $D kafka-console-producer --bootstrap-server $A --topic kept
python3 - <<'P'
import socket,struct
s=socket.create_connection(("127.0.0.1",17092))
# InitProducerId v0: transactional id null, timeout
body=struct.pack(">h",-1)+struct.pack(">i",60000)
m=struct.pack(">hhih",22,0,1,1)+b"x"+body
s.sendall(struct.pack(">i",len(m))+m); n=struct.unpack(">i",s.recv(4))[0]; print(s.recv(n))
P
t --delete --topic gone
stop
up
t --create --topic second --partitions 1
printf 'd\n' | $D kafka-console-producer --bootstrap-server $A --topic second
if [ "$1" = snapshot ]; then
for i in 1 2 3 4; do t --create --topic churn --partitions 2500; t --delete --topic churn; done
fi
stop KILL
up
t --alter --topic kept --partitions 4
printf 'e\n' | $D kafka-console-producer --bootstrap-server $A --topic kept
t --create --topic third --partitions 1
t --describe
python3 - <<'P'
import socket,struct
s=socket.create_connection(("127.0.0.1",17092))
# Metadata v7: all topics
m=struct.pack(">hhih",3,7,1,1)+b"x"+struct.pack(">i?",-1,False)
s.sendall(struct.pack(">i",len(m))+m); n=struct.unpack(">i",s.recv(4))[0]; b=s.recv(n)
while len(b)<n: b+=s.recv(n-len(b))
p=4
def i(f):
    global p
    v=struct.unpack_from(">"+f,b,p)[0]; p+=struct.calcsize(f); return v
def st():
    global p
    l=i("h"); v=b[p:p+max(l,0)]; p+=max(l,0); return v.decode()
i("i")
for _ in range(i("i")): i("i"); st(); i("i"); st()
st(); i("i")
out={}
for _ in range(i("i")):
    i("h"); n=st(); i("b"); ps={}
    for _ in range(i("i")):
        i("h"); num=i("i"); l=i("i"); e=i("i"); ps[num]=e
        for _ in range(3):
            for _ in range(i("i")): i("i")
    out[n]=[ps[k] for k in sorted(ps)]
import json; json.dump(out,open("/tmp/mg/epochs.json","w"),indent=1,sort_keys=True); print(out)
P
stop ${2:-TERM}
