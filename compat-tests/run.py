#!/usr/bin/env python3
"""Runs real clients against the broker: one fresh broker a client, one line a case.

    run.py [--smoke] [--address HOST:PORT] CLIENT ...      all clients where none is named

A client is a folder with an executable `driver` (see README.md for what it understands). With --address the broker is one that runs already; cases that
stop a broker or want other settings start one of their own. Results are in target/compat, for table.py. Exit code 0 when no case failed.
"""
import argparse, base64, json, os, random, re, select, shutil, signal, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENTS = ["kcat", "confluent-kafka", "kafka-python", "aiokafka", "java", "franz-go", "kafkajs", "sarama", "rust-rdkafka"]
TOOLS = "kafka-tools"
DATA = "kafka-data"
# Suites that are a script of their own, NAME.py.
SCRIPTS = ["ecosystem", "examples"]
EXAMPLES = "examples"
EDGES = "edges"
EVERYTHING = [*CLIENTS, TOOLS, DATA, *SCRIPTS, EDGES]
SMOKE = ["kcat", "confluent-kafka", "kafka-python"]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PATIENCE = 90
RESULTS = HERE.parent / "target/compat"


class NotApplicable(Exception):
    """The client cannot express the case."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class At:
    """A broker that somebody else started."""

    def __init__(self, address):
        self.address = address

    def remove(self):
        pass


class Broker:
    """A broker of our own, with a directory that goes with it."""

    def __init__(self, binary, *settings, command=()):
        self.binary, self.settings, self.command = binary, settings, command
        self.port, self.http, self.data = free_port(), f"127.0.0.1:{free_port()}", tempfile.mkdtemp(prefix="dlog-compat-")
        self.log = open(self.data + ".log", "w")
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        command = [self.binary, *self.command, "--data", self.data, "--listen", self.address, "--http", self.http]
        for setting in self.settings:
            command += ["--set", setting]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.time() + 20
        while time.time() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.01)
        raise RuntimeError(f"the broker did not start: {open(self.log.name).read()[-1000:]}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=30) != 0:
            raise RuntimeError("the broker did not stop cleanly")

    def remove(self):
        if self.process.poll() is None:
            self.stop()
        self.log.close()
        shutil.rmtree(self.data)
        os.remove(self.log.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def enc(value):
    return "-" if value is None else "=" + base64.b64encode(value).decode()


def dec(text):
    return None if text == "-" else base64.b64decode(text[1:])


class Driver:
    """One run of a client's driver, with lines in and out."""

    def __init__(self, client, operation, **options):
        words = [f"{k}={v}" for k, v in options.items()]
        self.process = subprocess.Popen([str(HERE / client / "driver"), operation, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, bufsize=1)
        self.lines, self.errors, self.changed = [], [], threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n").split("\t"))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def wait_for(self, holds, what):
        deadline = time.time() + PATIENCE
        with self.changed:
            while not holds(self.lines):
                if self.process.poll() == 77:
                    self.end()
                if self.process.poll() is not None and not self.reader.is_alive() and not holds(self.lines):
                    raise AssertionError(f"the driver ended before {what}: {''.join(self.errors)[-800:]}")
                if time.time() > deadline:
                    raise AssertionError(f"no {what} within {PATIENCE} s; last lines {self.lines[-3:]} {''.join(self.errors)[-500:]}")
                self.changed.wait(0.2)

    def end(self):
        """Closes the input, which asks the driver to finish, and returns all lines."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the driver did not end: {''.join(self.errors)[-500:]}")
        self.reader.join(10)
        if code == 77:
            raise NotApplicable(" ".join(self.errors).strip().splitlines()[-1])
        if code != 0:
            raise AssertionError(f"the driver failed ({code}): {''.join(self.errors)[-1500:]}")
        return self.lines


def run(client, operation, **options):
    return Driver(client, operation, **options).end()


class Record:
    def __init__(self, key=None, value=None, headers=(), partition=0, timestamp=None):
        self.key, self.value, self.headers, self.partition, self.timestamp = key, value, list(headers), partition, timestamp

    def line(self):
        headers = ",".join(f"{name}:{enc(value)}" for name, value in self.headers)
        return "\t".join([enc(self.key), enc(self.value), headers, str(self.partition), str(self.timestamp or 0)])

    def same(self, line):
        timestamp, key, value, headers = (line[3:] + [""])[:4]
        theirs = [(h.split(":", 1)[0], dec(h.split(":", 1)[1])) for h in headers.split(",") if h]
        same_time = not self.timestamp or int(timestamp) == self.timestamp
        return dec(key) == self.key and dec(value) == self.value and theirs == self.headers and same_time


def produce(client, broker, topic, records, **options):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        file.writelines(r.line() + "\n" for r in records)
        file.flush()
        return run(client, "produce", bootstrap=broker.address, topic=topic, file=file.name, **options)


def consume(client, broker, topic, partition=0, **options):
    """The records' lines: rec, partition, offset, timestamp, key, value, headers."""
    return [l for l in run(client, "consume", bootstrap=broker.address, topic=topic, partition=partition, **options) if l[0] == "rec"]


def assert_same(sent, got):
    assert len(got) == len(sent), f"{len(sent)} records were sent, {len(got)} came back"
    for number, (record, line) in enumerate(zip(sent, got)):
        assert record.same(line), f"record {number} differs: sent {record.line()[:200]}, got {str(line)[:200]}"


def create(client, broker, topic, partitions=1):
    run(client, "create", bootstrap=broker.address, topic=topic, partitions=partitions)


# The cases. Each gets the client's name, a broker and the options of the run.

def case_metadata(client, broker, options):
    lines = run(client, "metadata", bootstrap=broker.address)
    assert any(l[0] == "broker" and l[1] == broker.address for l in lines), lines


def case_create_topic(client, broker, options):
    topic = f"{client}-created"
    create(client, broker, topic, 3)
    lines = run(client, "metadata", bootstrap=broker.address)
    assert ["topic", topic, "3"] in lines, lines


def case_create_plainly(client, broker, options):
    """kafkajs sends version 2 or 3 of CreateTopics with -1 partitions, unless a number is given."""
    if client != "kafkajs":
        raise NotApplicable("the other clients' topics are created with a number of partitions")
    create(client, broker, "plain", -1)
    assert ["topic", "plain", "1"] in run(client, "metadata", bootstrap=broker.address)


def case_codec(codec):
    def case(client, broker, options):
        timestamp = None if client == "kcat" else 1_700_000_000_000  # kcat sends the present
        sent = [
            Record(b"key", b"value", [("h1", b"a"), ("h2", b"")], timestamp=timestamp),
            Record(None, b"no key"), Record(b"no value", None), Record(b"empty", b""),
            Record(b"key", "umlaut äöü".encode()), Record(b"big", bytes(random.Random(1).choices(b"abcdefghij", k=900_000))),
        ] + [Record(b"k%d" % i, b"value %d " % i * 10) for i in range(200)]
        topic = f"{client}-{codec}"
        create(client, broker, topic)
        acks = produce(client, broker, topic, sent, codec=codec)
        if any(l[0] == "ack" for l in acks):
            assert sorted(int(l[1]) for l in acks if l[0] == "ack") == list(range(len(sent)))
        assert_same(sent, consume(client, broker, topic, start="beginning"))
    return case


def case_from_offset_and_time(client, broker, options):
    topic = f"{client}-places"
    if client == "kcat":  # it sends the present
        first, second = ([Record(None, b"%s %d" % (name, i)) for i in range(50)] for name in (b"first", b"second"))
        create(client, broker, topic)
        produce(client, broker, topic, first, codec="none")
        time.sleep(0.1)
        between = int(time.time() * 1000)
        time.sleep(0.1)
        produce(client, broker, topic, second, codec="none")
        assert_same((first + second)[42:], consume(client, broker, topic, start="offset:42"))
        assert_same(second, consume(client, broker, topic, start=f"timestamp:{between}"))
        return
    base = 1_700_000_000_000
    sent = [Record(None, b"v%d" % i, timestamp=base + i * 1000) for i in range(100)]
    create(client, broker, topic)
    produce(client, broker, topic, sent, codec="none")
    assert_same(sent[42:], consume(client, broker, topic, start="offset:42"))
    assert_same(sent[70:], consume(client, broker, topic, start=f"timestamp:{base + 69_500}"))


# librdkafka's codes of a record that the broker rejects (INVALID_RECORD), and of another record of its batch (_INVALID_DIFFERENT_RECORD, KIP-467).
INVALID_RECORD, INVALID_DIFFERENT_RECORD = "87", "-138"


def case_rejected_records(client, broker, options):
    """Records without a key in one batch for a compacted topic: the producer learns which records the broker rejects."""
    if client not in ("confluent-kafka", "rust-rdkafka"):
        raise NotApplicable("the case belongs to librdkafka's errors of single records")
    topic = f"{client}-compacted"
    subprocess.run([options.binary, "kafka-topics", "-b", broker.address, "--create", "--topic", topic, "--config", "cleanup.policy=compact"],
                   check=True, stdout=subprocess.DEVNULL)
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        file.writelines(r.line() + "\n" for r in [Record(None, b"a"), Record(b"k", b"b"), Record(None, b"c")])
        file.flush()
        lines = run(client, "reports", bootstrap=broker.address, topic=topic, file=file.name)
    reports = sorted(tuple(l) for l in lines if l[0] in ("ack", "error"))
    expected = [("error", "0", INVALID_RECORD), ("error", "1", INVALID_DIFFERENT_RECORD), ("error", "2", INVALID_RECORD)]
    assert reports == expected, reports
    # Nothing of the batch is stored: the next record is the first one.
    valid = [Record(b"k", b"d")]
    produce(client, broker, topic, valid, codec="none")
    assert_same(valid, consume(client, broker, topic, start="beginning"))


def case_five_megabytes(client, _, options):
    with Broker(options.binary, "message.max.bytes=8388608") as large:
        sent = [Record(b"large", bytes(random.Random(2).choices(b"abcdefghij", k=5_000_000)))]
        create(client, large, "large")
        produce(client, large, "large", sent, codec="none", max_bytes=8_000_000)
        assert_same(sent, consume(client, large, "large", start="beginning", max_bytes=8_000_000))


def members(client, broker, topic, group, count):
    return [Driver(client, "group", bootstrap=broker.address, topic=topic, group=group) for _ in range(count)]


def assigned(member):
    last = [l for l in member.lines if l[0] == "assigned"]
    return {p for p in last[-1][1].split(",") if p} if last else set()


def wait_shared(group, partitions):
    everything = {str(p) for p in range(partitions)}
    def shared(_):
        parts = [assigned(m) for m in group]
        return all(parts) and set().union(*parts) == everything and sum(map(len, parts)) == partitions
    deadline = time.time() + PATIENCE
    while not shared(None):
        for member in group:
            if member.process.poll() is not None:
                raise AssertionError(f"a member ended: {''.join(member.errors)[-800:]}")
        if time.time() > deadline:
            raise AssertionError(f"the group did not share the partitions: {[assigned(m) for m in group]}")
        time.sleep(0.05)


def case_group_of_three(client, _, options):
    # A broker whose topics have six partitions: a client that cannot say a number gets them too.
    broker = Broker(options.binary, "num.partitions=6")
    group = []
    try:
        create(client, broker, "grouped", 6)
        group = members(client, broker, "grouped", "three", 3)
        wait_shared(group, 6)
        group.pop(0).end()
        wait_shared(group, 6)
    finally:
        for member in group:
            member.end()
        broker.remove()


def case_commit_and_restart(client, _, options):
    with Broker(options.binary) as broker:
        create(client, broker, "resumed")
        produce(client, broker, "resumed", [Record(None, b"before %d" % i) for i in range(50)], codec="none")
        member = Driver(client, "group", bootstrap=broker.address, topic="resumed", group="resumes")
        member.wait_for(lambda lines: sum(l[0] == "rec" for l in lines) >= 50, "50 records")
        member.end()
        broker.stop()
        broker.start()
        produce(client, broker, "resumed", [Record(None, b"after %d" % i) for i in range(20)], codec="none")
        member = Driver(client, "group", bootstrap=broker.address, topic="resumed", group="resumes")
        member.wait_for(lambda lines: sum(l[0] == "rec" for l in lines) >= 20, "20 records")
        got = [dec(l[5]) for l in member.end() if l[0] == "rec"]
        assert got == [b"after %d" % i for i in range(20)], got[:3]


def case_kill_under_load(client, _, options):
    with Broker(options.binary) as broker:
        kills = options.kills
        create(client, broker, "killed")
        writer = Driver(client, "stream", bootstrap=broker.address, topic="killed")
        acked = lambda lines: sum(l[0] == "ack" for l in lines)
        for _ in range(kills):
            before = acked(writer.lines)
            writer.wait_for(lambda lines: acked(lines) >= before + 1000, "1000 acknowledgements")
            time.sleep(random.random() * 0.2)
            broker.kill()
            broker.start()
        before = acked(writer.lines)
        writer.wait_for(lambda lines: acked(lines) >= before + 100, "acknowledgements after the last kill")
        lines = writer.end()
        sent = {l[1] for l in lines if l[0] == "ack"}
        got = [dec(l[5]).decode() for l in consume(client, broker, "killed", start="beginning")]
        lost, doubled = sent - set(got), len(got) - len(set(got))
        assert not lost, f"{len(lost)} acknowledged records are lost, as {sorted(lost)[:3]}"
        assert doubled == 0, f"{doubled} records are stored twice"
        return f"{kills} kills, {len(sent)} acknowledged"


TRANSACTIONAL = ["confluent-kafka", "java", "franz-go", "sarama"]
PARTITIONS = 6


class Workers:
    """Three processes of a client that work as one; one that ends is replaced."""

    def __init__(self, start):
        self.start, self.running, self.ended = start, [start(n) for n in range(3)], 0
        for worker in self.running:
            worker.wait_for(lambda lines: ["ready"] in lines, "a worker that is ready")

    def kill(self, number):
        self.running[number].process.kill()
        self.running[number].process.wait()
        self.running[number] = self.start(number)

    def replace_ended(self):
        for number, worker in enumerate(self.running):
            if worker.process.poll() is not None:
                self.ended += 1
                assert self.ended < 100, f"workers end again and again: {''.join(worker.errors)[-800:]}"
                self.running[number] = self.start(number)

    def stop(self):
        for worker in self.running:
            worker.process.stdin.close()
        for worker in self.running:
            if worker.process.wait(PATIENCE) not in (0, 1):
                raise AssertionError(f"a worker failed: {''.join(worker.errors)[-800:]}")


def under_kills(client, broker, seconds, workers):
    """Feeds the topic `in` while the broker and the workers are killed in turn; returns what was fed, and how many died."""
    feed = Driver(client, "stream", bootstrap=broker.address, topic="in", partitions=PARTITIONS, rate=1000)
    deadline, kills = time.time() + seconds, 0
    while time.time() < deadline:
        time.sleep(random.uniform(2, 5))
        workers.replace_ended()
        kills += 1
        if kills % 2:
            broker.kill()
            broker.start()
        else:
            workers.kill(random.randrange(3))
    fed = [l[1] for l in feed.end() if l[0] == "ack"]
    return fed, kills


def read_committed(client, broker, topic, partitions):
    lines = (l for p in range(partitions) for l in consume(client, broker, topic, partition=p, start="beginning", isolation="read_committed"))
    return [(l[4], dec(l[5]).decode()) for l in lines]


def wait_until(holds, what, workers, patience=PATIENCE):
    deadline = time.time() + patience
    while not holds():
        workers.replace_ended()
        assert time.time() < deadline, f"{what} within {patience} s"
        time.sleep(0.5)


def case_exactly_once(client, _, options):
    """Three workers read, transform and write in transactions, while the broker and the workers are killed: the output is exactly the input's transform."""
    if client not in TRANSACTIONAL:
        raise NotApplicable("no transform with this client")
    broker = Broker(options.binary)
    try:
        create(client, broker, "in", PARTITIONS)
        create(client, broker, "out", PARTITIONS)
        start = lambda n: Driver(client, "transform", bootstrap=broker.address, group="transformers", id=f"worker-{n}", **{"from": "in", "to": "out"})
        workers = Workers(start)
        fed, kills = under_kills(client, broker, options.seconds, workers)
        count = lambda: len(read_committed(client, broker, "out", PARTITIONS))
        wait_until(lambda: count() >= len(fed), f"{len(fed)} records in the output", workers)
        workers.stop()
        inside = sorted(value for _, value in read_committed(client, broker, "in", PARTITIONS))
        out = sorted(value for _, value in read_committed(client, broker, "out", PARTITIONS))
        lost = set(fed) - set(inside)
        assert not lost, f"{len(lost)} acknowledged records are lost from the input"
        expected = sorted("t:" + value for value in inside)
        missing, doubled = set(expected) - set(out), len(out) - len(set(out))
        assert out == expected, f"{len(missing)} are missing as {sorted(missing)[:3]}, {doubled} are there twice, of {len(expected)}"
        return f"{kills} kills, {len(out)} records, {workers.ended} workers ended by themselves"
    finally:
        broker.remove()


def case_streams(client, _, options):
    """Kafka Streams counts words with exactly_once_v2 through restarts of the broker and of itself: the last counts are exact."""
    if client != "java":
        raise NotApplicable("Kafka Streams belongs to the Java client")
    broker = Broker(options.binary)
    states = tempfile.mkdtemp(prefix="dlog-streams-")
    try:
        create(client, broker, "in", PARTITIONS)
        create(client, broker, "out", 1)
        start = lambda n: Driver(client, "wordcount", bootstrap=broker.address, group="words", id=f"{states}/{n}", **{"from": "in", "to": "out"})
        workers = Workers(start)
        fed, kills = under_kills(client, broker, options.seconds, workers)
        inside = [value for _, value in read_committed(client, broker, "in", PARTITIONS)]
        assert set(fed) <= set(inside), "acknowledged records are lost from the input"
        expected = {}
        for value in inside:
            code = 0
            for letter in value:
                code = (31 * code + ord(letter) + 2**31) % 2**32 - 2**31
            expected[f"w{code % 100}"] = expected.get(f"w{code % 100}", 0) + 1
        last = lambda: {dec(key).decode(): int(value) for key, value in read_committed(client, broker, "out", 1)}
        wait_until(lambda: sum(last().values()) >= len(inside), f"{len(inside)} counted words", workers, 2 * PATIENCE)
        workers.stop()
        found = last()
        assert found == expected, f"counts differ: {sorted(set(found.items()) ^ set(expected.items()))[:4]}"
        return f"{kills} kills, {len(inside)} records counted"
    finally:
        broker.remove()
        shutil.rmtree(states, ignore_errors=True)


def tool(name, *words):
    """One of Kafka's own command-line tools, by its class."""
    done = subprocess.run(["java", "-cp", f"{HERE}/java/target/tools/*", name, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{name}: {done.stderr[-500:]} {done.stdout[-500:]}"
    return done.stdout


def case_kafkas_tools(client, _, options):
    """Kafka's console tools speak to the broker, and its dump tool and offsets formatter read our files."""
    if client != "java":
        raise NotApplicable("the tools belong to the Java client")
    with Broker(options.binary) as broker:
        address = ["--bootstrap-server", broker.address]
        tool("org.apache.kafka.tools.TopicCommand", *address, "--create", "--topic", "tools", "--partitions", "2")
        assert "PartitionCount: 2" in tool("org.apache.kafka.tools.TopicCommand", *address, "--describe", "--topic", "tools")
        produce(client, broker, "tools", [Record(b"k", b"v%d" % i) for i in range(500)], codec="lz4")
        shown = tool("org.apache.kafka.tools.consumer.ConsoleConsumer", *address, "--topic", "tools", "--from-beginning", "--max-messages", "500", "--group", "tools")
        assert shown.split() == ["v%d" % i for i in range(500)], shown[:200]
        assert "tools" in tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", *address, "--list")
        described = tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", *address, "--describe", "--group", "tools")
        assert " 500 " in described, described
        assert "tools:0:500" in tool("org.apache.kafka.tools.GetOffsetShell", *address, "--topic", "tools")
        offsets = tool("org.apache.kafka.tools.consumer.ConsoleConsumer", *address, "--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms", "5000",
                       "--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter")
        assert '"topic":"tools"' in offsets and '"offset":500' in offsets, offsets[-500:]
        broker.stop()
        files = sorted(Path(broker.data).glob("*/*.log")) + sorted(Path(broker.data).glob("*/*.index")) + sorted(Path(broker.data).glob("*/*.timeindex"))
        files = [f for f in files if f.stat().st_size and not f.parent.name.startswith("__cluster")]
        dumped = tool("org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--files", ",".join(map(str, files)))
        broker.start()
        complaints = [l for l in dumped.splitlines() if "isvalid: false" in l or "Found" in l or "ismatch" in l or "nvalid" in l and "isvalid: true" not in l]
        assert not complaints, complaints[:3]
        return f"{len(files)} files dumped"


CASES = [("metadata", case_metadata), ("create topic", case_create_topic), ("create a topic by its name alone", case_create_plainly)]
CASES += [(f"produce and read back, {codec}", case_codec(codec)) for codec in CODECS]
CASES += [("read from an offset and a timestamp", case_from_offset_and_time), ("a record of 5 MB, limits raised", case_five_megabytes), ("rejected records of a batch", case_rejected_records),
          ("a group of three, one leaves", case_group_of_three), ("commit, restart the broker, go on", case_commit_and_restart),
          ("Kafka's own tools", case_kafkas_tools),
          ("kill -9 under load, idempotent", case_kill_under_load),
          ("exactly once, all killed in turn", case_exactly_once), ("Kafka Streams, exactly_once_v2", case_streams)]


def version(client):
    """The version of the client's library that is installed."""
    def said(*words):
        done = subprocess.run(words, cwd=HERE / client, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout
    def pip(package):
        return re.search(r"^Version: (\S+)", said(HERE / ".venv/bin/pip", "show", package), re.M)
    found = {
        "kcat": lambda: re.search(r"Version (\S+)", said("kcat", "-V")),
        "confluent-kafka": lambda: pip("confluent-kafka"), "kafka-python": lambda: pip("kafka-python"), "aiokafka": lambda: pip("aiokafka"),
        "java": lambda: re.search(r"kafka-clients-([\d.]+)\.jar", said("ls", "target/libs")),
        "franz-go": lambda: re.search(r"franz-go v(\S+)", said("cat", "go.mod")),
        "kafkajs": lambda: re.search(r"kafkajs@(\S+)", said("npm", "ls", "kafkajs")),
        "sarama": lambda: re.search(r"sarama v(\S+)", said("cat", "go.mod")),
        "rust-rdkafka": lambda: re.search(r'name = "rdkafka"\nversion = "(\S+)"', said("cat", "Cargo.lock")),
    }[client]()
    return found[1] if found else "unknown"


def run_client(client, options):
    results = {}
    # Some records are of 2023: retention would delete them between two steps of a slow case.
    broker = At(options.address) if options.address else Broker(options.binary, "log.retention.ms=-1")
    try:
        for name, case in CASES:
            if options.case and options.case not in name:
                continue
            begin = time.time()
            try:
                note = case(client, broker, options) or ""
                verdict = "ok"
            except NotApplicable as reason:
                verdict, note = "n/a", str(reason)
            except Exception as error:
                verdict, note = "FAILED", f"{type(error).__name__}: " + " ".join(str(error).split())[-600:]
            results[name] = [verdict, note]
            print(f"{client:<16} {verdict:<7} {name:<38} {time.time() - begin:6.1f} s  {note}", flush=True)
    finally:
        broker.remove()
    if not options.case:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{client}.json").write_text(json.dumps({"version": version(client), "cases": results}, indent=1))
    return sum(verdict == "FAILED" for verdict, _ in results.values())


def compare_tools(options):
    """Kafka's tools against our broker and against Apache Kafka."""
    sys.path.insert(0, str(HERE / TOOLS))
    from compare import compare
    from kafka_peer import Kafka
    def say(verdict, name, seconds, note):
        print(f"{TOOLS:<16} {verdict:<7} {name:<48} {seconds:6.1f} s  {note}", flush=True)
    theirs = Kafka()
    ours = Broker(options.binary, "group.initial.rebalance.delay.ms=0", command=["serve"])
    try:
        return compare(ours.address, theirs.address, say, options.case)
    finally:
        ours.remove()
        theirs.remove()


def compare_edges(options):
    """Illegal, empty, null, repeated and extreme requests to our broker and to Apache Kafka."""
    sys.path.insert(0, str(HERE / EDGES))
    from comparison import compare
    from kafka_peer import Kafka
    def say(verdict, name, seconds, note):
        print(f"{EDGES:<16} {verdict:<7} {name:<28} {seconds:6.1f} s  {note}", flush=True)
    theirs = Kafka()
    # Kafka decompresses every compressed batch; so does our broker with this setting, which is the default in dev mode.
    ours = Broker(options.binary, "group.initial.rebalance.delay.ms=0", "compressed.batches.check=full", command=["serve"])
    try:
        return compare(ours.address, theirs.address, say, options.case)
    finally:
        ours.remove()
        theirs.remove()


def take_over_data(options):
    """A directory that Apache Kafka wrote."""
    subprocess.run([str(HERE / "install.sh"), "confluent-kafka"], stdout=subprocess.DEVNULL, check=True)
    return subprocess.run([str(HERE / ".venv/bin/python"), str(HERE / DATA / "takeover.py"), options.binary]).returncode


def run_script(name, options):
    """A suite in a script of its own."""
    return subprocess.run([sys.executable, str(HERE / f"{name}.py"), "--binary", options.binary, "--case", options.case or ""]).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="*")
    parser.add_argument("--smoke", action="store_true", help="the three quickest clients, few kills")
    parser.add_argument("--address", help="a broker that runs already")
    parser.add_argument("--case", help="only cases whose name contains this")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seconds", type=int, help="how long transactions are killed")
    parser.add_argument("--binary", default=str(HERE.parent / "target/release/dlog"))
    options = parser.parse_args()
    options.kills = options.kills or (3 if options.smoke else 20)
    options.seconds = options.seconds or (15 if options.smoke else 300)
    clients = options.clients or (SMOKE if options.smoke else EVERYTHING)
    unknown = [c for c in clients if c not in EVERYTHING]
    if unknown:
        sys.exit(f"no such client: {', '.join(unknown)}; there are {', '.join(EVERYTHING)}")
    failures = 0
    for client in clients:
        done = subprocess.run([str(HERE / "install.sh"), client], stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            print(f"{client:<16} FAILED  install", flush=True)
            failures += 1
            continue
        suites = {TOOLS: compare_tools, EDGES: compare_edges, DATA: take_over_data, **{name: lambda options: run_script(client, options) for name in SCRIPTS}}
        failures += suites.get(client, lambda options: run_client(client, options))(options)
    print(f"{'no case failed' if failures == 0 else f'{failures} cases failed'}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
