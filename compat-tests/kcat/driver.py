"""kcat: one call a record where records differ in more than their value."""
import json, re, subprocess, sys
from common import input_closed, not_applicable, options, records, say, say_record

operation, o = options()
limits = ["-X", f"message.max.bytes={o['max_bytes']}", "-X", f"fetch.message.max.bytes={o['max_bytes']}"] if "max_bytes" in o else []


def kcat(*words, data=None):
    return subprocess.run(["kcat", "-b", o["bootstrap"], *words, *limits], input=data, stdout=subprocess.PIPE, check=True, timeout=80).stdout


if operation == "metadata":
    shown = json.loads(kcat("-L", "-J"))
    for b in shown["brokers"]:
        say("broker", b["name"])
    for t in shown["topics"]:
        say("topic", t["topic"], len(t["partitions"]))
elif operation == "create":
    # kcat has no command for it: a look at a topic creates it, with one partition.
    if o["topic"].endswith("-created"):
        not_applicable("kcat cannot create a topic with a number of partitions")
    kcat("-P", "-t", o["topic"], "-X", "allow.auto.create.topics=true", data=b"")
    kcat("-L", "-t", o["topic"], "-X", "allow.auto.create.topics=true")
elif operation == "produce":
    # Consecutive records with the same headers go in one call, parted by bytes that no record has.
    run, kind = [], None
    def send():
        if not run:
            return
        headers = [w for name, value in kind[0] for w in ("-H", f"{name}={value.decode()}")]
        key = ["-K", "\x01"] if kind[1] else []
        null = ["-Z"] if kind[3] else []
        lines = b"\x02".join((k + b"\x01" if k is not None else b"") + (v or b"") for k, v in run)
        kcat("-P", "-t", o["topic"], "-p", "0", "-D", "\x02", "-z", o["codec"], *headers, *key, *null, data=lines)
    for key, value, headers, partition, timestamp in records(o["file"]):
        now = (headers, key is not None, timestamp, value is None)
        if now != kind:
            send()
            run, kind = [], now
        run.append((key, value))
    send()
elif operation == "consume":
    kind, _, place = o["start"].partition(":")
    where = {"beginning": "beginning", "offset": place, "timestamp": f"s@{place}"}[kind]
    shape = "%p\x03%o\x03%T\x03%K\x03%k\x03%S\x03%s\x03%h\x04"
    out = kcat("-C", "-t", o["topic"], "-p", o["partition"], "-o", where, "-e", "-q", "-f", shape)
    for line in out.split(b"\x04")[:-1]:
        partition, offset, timestamp, key_size, key, value_size, value, headers = line.split(b"\x03")
        pairs = [tuple(h.split("=", 1)) for h in headers.decode().split(",") if h]
        key = None if key_size == b"-1" else key
        value = None if value_size == b"-1" else value
        say_record(partition.decode(), offset.decode(), timestamp.decode(), key, value, [(n, v.encode()) for n, v in pairs])
elif operation == "group":
    closed = input_closed()
    shape = "%p\x03%o\x03%s\n"
    child = subprocess.Popen(["kcat", "-b", o["bootstrap"], "-G", o["group"], "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=10000",
                              "-u", "-f", shape, o["topic"]], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    import threading
    def errors():
        for line in child.stderr:
            found = re.search(rb"assigned: (.*)", line)
            if found:
                say("assigned", ",".join(re.findall(r"\[(\d+)\]", found.group(1).decode())))
    threading.Thread(target=errors, daemon=True).start()
    def out():
        for line in child.stdout:
            partition, offset, value = line.rstrip(b"\n").split(b"\x03")
            say_record(partition.decode(), offset.decode(), -1, None, value, [])
    threading.Thread(target=out, daemon=True).start()
    closed.wait()
    child.terminate()
    child.wait(30)
elif operation == "stream":
    not_applicable("kcat does not tell which records were acknowledged")
