"""A data directory that Apache Kafka wrote is opened by our broker, by Kafka again, and by our broker for good.

    takeover.py BINARY              checks, one line a case; exit code 0 when none failed
    takeover.py --golden FOLDER     writes the directory and what is in it into FOLDER, for tests/kafka_directory.rs
"""
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType
from kafka_peer import JARS, Kafka, free_port, is_ready

SETTINGS = ["offsets.topic.num.partitions=3", "transaction.state.log.num.partitions=3", "share.coordinator.state.topic.num.partitions=1"]
TOPICS = {"plain": 3, "compacted": 1, "grown": 4, "bought": 2}
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def wait(futures):
    return {key: future.result(60) for key, future in futures.items()}


def send(address, topic, values, **settings):
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, **settings})
    for at, value in enumerate(values):
        producer.produce(topic, key=b"k%d" % (at % 7), value=value)
    assert producer.flush(60) == 0


def transaction(address, values, commit, group=None):
    producer = Producer({"bootstrap.servers": address, "transactional.id": "shop"})
    producer.init_transactions(60)
    producer.begin_transaction()
    for value in values:
        producer.produce("bought", key=value, value=value)
    if commit:
        producer.commit_transaction(60)
    else:
        producer.flush(60)
        producer.abort_transaction(60)


def write(address):
    """What a user of Kafka has: topics with settings, records in each codec, transactions, offsets, a deleted topic."""
    admin = AdminClient({"bootstrap.servers": address})
    topics = [NewTopic("plain", 3, 1, config={"retention.ms": "999999999999", "segment.bytes": "1048576"}),
              NewTopic("compacted", 1, 1, config={"cleanup.policy": "compact"}), NewTopic("grown", 1, 1), NewTopic("bought", 2, 1), NewTopic("gone", 2, 1)]
    wait(admin.create_topics(topics))
    wait(admin.create_partitions([NewPartitions("grown", 4)]))
    change = ConfigResource(ResourceType.TOPIC, "grown", incremental_configs=[
        ConfigEntry("max.message.bytes", "2000000", incremental_operation=AlterConfigOpType.SET)])
    wait(admin.incremental_alter_configs([change]))
    for codec in CODECS:
        send(address, "plain", [b"%s %d" % (codec.encode(), at) for at in range(40)], **{"compression.type": codec})
    send(address, "compacted", [b"v%d" % at for at in range(50)])
    send(address, "grown", [b"g%d" % at for at in range(40)])
    send(address, "gone", [b"x"])
    transaction(address, [b"a", b"b", b"c"], commit=True)
    transaction(address, [b"never"], commit=False)
    transaction(address, [b"d"], commit=True)
    consumer = Consumer({"bootstrap.servers": address, "group.id": "readers", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe(["plain"])
    seen = 0
    while seen < 80:
        message = consumer.poll(10)
        assert message is not None and not message.error(), message
        seen += 1
    consumer.commit(asynchronous=False)
    consumer.close()
    wait(admin.delete_topics(["gone"]))


def records(address, topic, partition, isolation):
    consumer = Consumer({"bootstrap.servers": address, "group.id": "look", "enable.auto.commit": False, "enable.partition.eof": True,
                         "isolation.level": isolation})
    consumer.assign([TopicPartition(topic, partition, 0)])
    found = []
    while True:
        message = consumer.poll(20)
        assert message is not None, f"no end of {topic}-{partition}"
        if message.error():
            break
        key = message.key().decode() if message.key() is not None else None
        found.append([message.offset(), message.timestamp()[1], key, message.value().decode()])
    consumer.close()
    return found


def offsets(admin, group):
    """What the group has committed; a broker that has just started may still be loading it, which the client does not retry."""
    deadline = time.time() + 60
    while True:
        try:
            return admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(60)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.COORDINATOR_LOAD_IN_PROGRESS or time.time() > deadline:
                raise
            time.sleep(0.2)


def facts(address):
    """All that a client can see of it."""
    admin = AdminClient({"bootstrap.servers": address})
    names = sorted(name for name in admin.list_topics(timeout=30).topics if not name.startswith("__"))
    described = wait(admin.describe_topics(TopicCollection(names)))
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    own = {r.name: {k: e.value for k, e in f.result(60).items() if not e.is_default and e.source == 1} for r, f in admin.describe_configs(resources).items()}
    committed = offsets(admin, "readers")
    return {
        "topics": {name: {"id": str(d.topic_id), "partitions": len(d.partitions), "configs": own[name]} for name, d in described.items()},
        "records": {f"{n}-{p}": records(address, n, p, "read_uncommitted") for n in names for p in range(len(described[n].partitions))},
        "committed": {f"bought-{p}": records(address, "bought", p, "read_committed") for p in range(2)},
        "offsets": {f"{o.topic}-{o.partition}": o.offset for o in committed.topic_partitions},
    }


class Dlog:
    def __init__(self, binary, data):
        self.binary, self.data, self.port = binary, data, free_port()
        self.log = open(f"{data}.dlog.log", "a")
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self):
        command = [self.binary, "serve", "--data", self.data, "--listen", self.address, "--http", "127.0.0.1:0"]
        self.process = subprocess.Popen([str(c) for c in command], stdout=self.log, stderr=self.log)
        if not is_ready(self.process, self.port, 20):
            raise RuntimeError(f"the broker did not start: {open(self.log.name).read()[-1000:]}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, "the broker did not stop cleanly"

    def kill(self):
        self.process.kill()
        self.process.wait()


def dump(files):
    """What Kafka's dump tool says of our metadata; it must be sound."""
    names = ",".join(map(str, files))
    words = ["java", "-cp", f"{JARS}/*", "org.apache.kafka.tools.DumpLogSegments", "--cluster-metadata-decoder", "--deep-iteration", "--files", names]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    complaints = [l for l in done.stdout.splitlines() if "isvalid: false" in l or "Error" in l or "Could not" in l or "Exception" in l]
    assert done.returncode == 0 and not complaints, f"{names}: {complaints[:3]} {done.stdout[-300:]}"
    return done.stdout


def same(before, after):
    for part in before:
        assert before[part] == after[part], f"{part} differ: {str(before[part])[:300]} ... {str(after[part])[:300]}"


def check(binary, say):
    kafka = Kafka(*SETTINGS)
    failures = 0
    try:
        write(kafka.address)
        before = facts(kafka.address)
        assert len(before["records"]["plain-0"]) > 0 and before["offsets"]
        kafka.stop()
        data = kafka.folder / "data"
        dlog = Dlog(binary, data)
        steps = []

        def ours():
            same(before, facts(dlog.address))
            dlog.stop()

        def kafkas():
            kafka.start()
            same(before, facts(kafka.address))
            kafka.stop()

        def refused():
            """Kafka has written its own metadata since."""
            try:
                dlog.start()
            except RuntimeError as error:
                assert "Apache Kafka has written to" in str(error), error
            else:
                raise AssertionError("what Kafka wrote since is not seen")
            shutil.rmtree(data / "__cluster_metadata-0" / "dlog")
            dlog.start()
            same(before, facts(dlog.address))

        def go_on():
            send(dlog.address, "grown", [b"new %d" % at for at in range(100)])
            transaction(dlog.address, [b"e", b"f"], commit=True)
            dlog.kill()
            dlog.start()
            after = facts(dlog.address)
            counts = [sum(len(f["records"][f"grown-{p}"]) for p in range(4)) for f in (before, after)]
            assert counts[1] == counts[0] + 100, counts
            assert sum(len(after["committed"][f"bought-{p}"]) for p in range(2)) == 6, after["committed"]
            dlog.stop()
            verified = subprocess.run([binary, "verify", str(data)], capture_output=True, text=True)
            assert verified.returncode == 0 and " 0 damaged" in verified.stdout, verified.stdout

        def dumped():
            """Kafka's dump tool with the metadata decoder reads our log: that beside Kafka's, and one that was ours from the beginning."""
            fresh = Dlog(binary, kafka.folder / "fresh")
            admin = AdminClient({"bootstrap.servers": fresh.address})
            wait(admin.create_topics([NewTopic("kept", 3, 1, config={"retention.ms": "99"}), NewTopic("gone", 2, 1)]))
            wait(admin.delete_topics(["gone"]))
            fresh.kill()
            fresh.start()
            fresh.stop()
            text = dump(sorted((kafka.folder / "fresh" / "__cluster_metadata-0").glob("*.log")))
            for sign in ["LeaderChange:", "REGISTER_BROKER_RECORD", "PARTITION_CHANGE_RECORD", '"name":"metadata.version","featureLevel":30', "REMOVE_TOPIC_RECORD"]:
                assert sign in text, f"no {sign} in {text[:300]}"
            beside = data / "__cluster_metadata-0" / "dlog"
            text = dump(sorted(beside.glob("*.checkpoint")) + sorted(beside.glob("*.log")))
            for sign in ["SnapshotHeader", "SnapshotFooter", "TOPIC_RECORD", "CONFIG_RECORD", "LeaderChange:"]:
                assert sign in text, f"no {sign} in {text[:300]}"

        def kafka_opens_ours():
            """Apache Kafka replays a metadata log of ours, with a snapshot, leads it and serves its topics."""
            shutil.rmtree(data)
            shutil.copytree(Path(__file__).resolve().parent.parent.parent / "tests" / "golden" / "dlog-0.1.0" / "snapshot", data)
            converted = Dlog(binary, data)
            admin = AdminClient({"bootstrap.servers": converted.address})
            wait(admin.create_topics([NewTopic("fresh", 2, 1, config={"retention.ms": "99"})]))
            converted.stop()
            assert list((data / "__cluster_metadata-0").glob("*.checkpoint")), "there is no snapshot"
            meta = data / "meta.properties"
            meta.write_text("".join(line + "\n" for line in meta.read_text().splitlines() if not line.startswith("software")))
            kafka.start()
            admin = AdminClient({"bootstrap.servers": kafka.address})
            deadline = time.time() + 60
            while True:
                topics = admin.list_topics(timeout=10).topics
                led = {name: sorted(p.leader for p in topic.partitions.values()) for name, topic in topics.items() if not name.startswith("__")}
                if led == {"kept": [1] * 4, "second": [1], "third": [1], "fresh": [1] * 2}:
                    break
                assert time.time() < deadline, led
                time.sleep(0.5)
            assert len(records(kafka.address, "second", 0, "read_uncommitted")) == 1
            wait(admin.create_topics([NewTopic("kafkas", 1, 1)]))
            kafka.stop()

        steps = [("Kafka's directory opens as it was", ours), ("until we write, Kafka opens it again", kafkas),
                 ("what Kafka wrote since is taken over when told so", refused), ("we go on in it, also after kill -9", go_on),
                 ("Kafka's dump tool reads our metadata", dumped),
                 ("Apache Kafka opens our metadata", kafka_opens_ours)]
        for name, step in steps:
            begin = time.time()
            try:
                step()
                say("ok", name, time.time() - begin, "")
            except Exception as error:
                say("FAILED", name, time.time() - begin, f"{type(error).__name__}: " + " ".join(str(error).split())[-600:])
                failures += 1
                break
        if dlog.process.poll() is None:
            dlog.kill()
    finally:
        kafka.remove()
    return failures


def golden(folder):
    kafka = Kafka(*SETTINGS)
    try:
        write(kafka.address)
        found = facts(kafka.address)
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)
        # The indexes of topics that are on their way out take 20 MB.
        shutil.copytree(kafka.folder / "data", folder / "directory", ignore=shutil.ignore_patterns("*-delete"))
        (folder / "facts.json").write_text(json.dumps(found) + "\n")
    finally:
        kafka.remove()


if __name__ == "__main__":
    if sys.argv[1] == "--golden":
        golden(Path(sys.argv[2]))
    else:
        say = lambda verdict, name, seconds, note: print(f"{'kafka-data':<16} {verdict:<7} {name:<50} {seconds:6.1f} s  {note}", flush=True)
        sys.exit(1 if check(sys.argv[1], say) else 0)
