#!/usr/bin/env python3
"""Programs that are built on a broker: ecosystem.py [--binary FILE] [--case WORD]. One line a case; exit code 0 when none failed.

Each program is installed from a public registry into target/ecosystem, is given a broker of its own, and must carry records from one end to the other, also
over a restart of itself.
"""
import argparse, json, os, re, shutil, subprocess, sys, tarfile, tempfile, time, urllib.request
from pathlib import Path

from kafka_peer import Kafka
from run import At, Broker, Driver, HERE, Record, assert_same, consume, create, dec, free_port, produce, run

PLACE = HERE.parent / "target/ecosystem"
CLIENT = "confluent-kafka"
PATIENCE = 120
CENTRAL = "https://repo.maven.apache.org/maven2"
APICURIO = "3.0.9"  # the last that runs on Java 17


class Program:
    """A process with a log; it ends with the value."""

    def __init__(self, *words, **more):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="dlog-ecosystem-", suffix=".log")
        self.process = subprocess.Popen([str(word) for word in words], stdout=self.log, stderr=self.log, **more)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def wait_until(self, holds, what):
        end = time.time() + PATIENCE
        while not holds():
            said = Path(self.log.name).read_text()[-1500:]
            assert self.process.poll() is None, f"it ended before {what}: {said}"
            assert time.time() < end, f"no {what} within {PATIENCE} s: {said}"
            time.sleep(0.3)


def values(broker, topic, partitions=1):
    return [dec(line[5]) for partition in range(partitions) for line in consume(CLIENT, broker, topic, partition=partition, start="beginning")]


def topics(broker):
    return {line[1]: int(line[2]) for line in run(CLIENT, "metadata", bootstrap=broker.address) if line[0] == "topic"}


def connect_jars():
    jars = PLACE / "connect"
    if not jars.is_dir():
        subprocess.run(["mvn", "-q", "-B", "-f", HERE / "java/connect/pom.xml", "dependency:copy-dependencies", "-DincludeScope=runtime",
                        f"-DoutputDirectory={jars}"], check=True, stdout=subprocess.DEVNULL)
    return f"{jars}/*"


def java(jars, *words):
    return "java", "-Xmx512M", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars, *words


def properties(path, **settings):
    path.write_text("".join(f"{name.replace('_', '.')}={value}\n" for name, value in settings.items()))
    return path


def case_connect(options, folder):
    """Kafka Connect standalone carries a file's lines through a topic into another file, and goes on where it was when it starts again."""
    jars, source, sink = connect_jars(), folder / "in.txt", folder / "out.txt"
    converter = "org.apache.kafka.connect.storage.StringConverter"
    with Broker(options.binary) as broker:
        worker = properties(folder / "worker", bootstrap_servers=broker.address, key_converter=converter, value_converter=converter, offset_flush_interval_ms=200,
                            offset_storage_file_filename=folder / "offsets", listeners=f"http://127.0.0.1:{free_port()}", plugin_discovery="service_load")
        reader = properties(folder / "source", name="source", connector_class="org.apache.kafka.connect.file.FileStreamSourceConnector", tasks_max=1, file=source, topic="lines")
        writer = properties(folder / "sink", name="sink", connector_class="org.apache.kafka.connect.file.FileStreamSinkConnector", tasks_max=1, file=sink, topics="lines")
        sent = []
        for round_ in range(2):
            more = [f"line {round_}-{number}" for number in range(1000)]
            sent += more
            with open(source, "a") as file:
                file.write("\n".join(more) + "\n")
            with Program(*java(jars, "org.apache.kafka.connect.cli.ConnectStandalone", worker, reader, writer)) as program:
                program.wait_until(lambda: sink.exists() and len(sink.read_text().splitlines()) >= len(sent), f"{len(sent)} lines in the sink")
        assert sink.read_text().splitlines() == sent
        assert values(broker, "lines") == [line.encode() for line in sent]
    return f"{len(sent)} lines, a restart between"


def case_mirror_maker(options, folder):
    """MirrorMaker 2 carries topics, records and the offsets of a group from Apache Kafka to us."""
    # The records are of 2023: retention would delete them 30 s after the start, on both sides.
    jars, theirs = connect_jars(), Kafka("log.retention.ms=-1")
    try:
        with Broker(options.binary, "log.retention.ms=-1") as broker:
            there = At(theirs.address)
            sent = [Record(b"k%d" % n, b"v%d" % n, [("h", b"x")], timestamp=1_700_000_000_000 + n) for n in range(2000)]
            create(CLIENT, there, "orders", 3)
            for record in sent:
                record.partition = int(record.key[1:]) % 3
            produce(CLIENT, there, "orders", sent, codec="zstd")
            # A group that has read everything.
            member = Driver(CLIENT, "group", bootstrap=there.address, topic="orders", group="billing")
            member.wait_for(lambda lines: sum(line[0] == "rec" for line in lines) >= len(sent), "all records")
            member.end()
            settings = properties(folder / "mm2", clusters="theirs,ours", theirs_bootstrap_servers=theirs.address, ours_bootstrap_servers=broker.address)
            with open(settings, "a") as file:
                file.write("theirs->ours.enabled=true\ntheirs->ours.topics=orders\ntheirs->ours.groups=billing\nours->theirs.enabled=false\nreplication.factor=1\n"
                           "offset-syncs.topic.replication.factor=1\ncheckpoints.topic.replication.factor=1\nheartbeats.topic.replication.factor=1\n"
                           "emit.checkpoints.interval.seconds=1\nsync.group.offsets.enabled=true\nsync.group.offsets.interval.seconds=1\nrefresh.topics.interval.seconds=2\n"
                           "refresh.groups.interval.seconds=2\nemit.heartbeats.interval.seconds=1\noffset.flush.interval.ms=500\n")
            with Program(*java(jars, "org.apache.kafka.connect.mirror.MirrorMaker", settings)) as program:
                name = "theirs.orders"
                program.wait_until(lambda: topics(broker).get(name) == 3 and len(values(broker, name, 3)) >= len(sent), "all records here")
                described = lambda: subprocess.run(["java", "-cp", f"{HERE}/java/target/tools/*", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server",
                                                    broker.address, "--describe", "--group", "billing"], capture_output=True, text=True).stdout
                program.wait_until(lambda: len(re.findall(rf"billing\s+{name}\s+\d+\s+\d+", described())) == 3, "the group's offsets here")
                internal = [topic for topic in topics(broker) if "mm2" in topic or "heartbeats" in topic or "checkpoints" in topic]
                assert len(internal) >= 4, internal
            for partition in range(3):
                assert_same([record for record in sent if record.partition == partition], consume(CLIENT, broker, name, partition=partition, start="beginning"))
    finally:
        theirs.remove()
    return f"{len(sent)} records of 3 partitions, the offsets of a group, {len(internal)} topics of its own"


def case_registry(options, folder):
    """Apicurio Registry keeps its schemas in a topic of ours, and has them again after a restart."""
    home = PLACE / f"apicurio-{APICURIO}"
    if not home.is_dir():
        name = f"apicurio-registry-app-{APICURIO}-all.tar.gz"
        with urllib.request.urlopen(f"{CENTRAL}/io/apicurio/apicurio-registry-app/{APICURIO}/{name}") as answer, tarfile.open(fileobj=answer, mode="r|gz") as packed:
            packed.extractall(str(home) + ".part")
        os.rename(str(home) + ".part", home)
    schema = {"schemaType": "AVRO", "schema": json.dumps({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}]})}
    with Broker(options.binary) as broker:
        port = free_port()
        environment = {**os.environ, "APICURIO_STORAGE_KIND": "kafkasql", "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": broker.address, "QUARKUS_HTTP_PORT": str(port),
                       "QUARKUS_HTTP_HOST": "127.0.0.1"}
        def ask(path, body=None):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/apis/ccompat/v7{path}", data=body and json.dumps(body).encode(), headers={"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        def answers():
            try:
                return ask("/subjects") is not None
            except OSError:
                return False
        for round_ in range(2):
            with Program("java", "-Xmx512M", "-jar", home / f"apicurio-registry-app-{APICURIO}-runner.jar", env=environment) as program:
                program.wait_until(answers, "answer to GET /subjects")
                if round_ == 0:
                    number = ask("/subjects/orders-value/versions", schema)["id"]
                program.wait_until(lambda: ask("/subjects") == ["orders-value"], "the subject")
                assert json.loads(ask(f"/schemas/ids/{number}")["schema"])["name"] == "Order"
        kept = {name: count for name, count in topics(broker).items() if "kafkasql" in name}
        assert kept, topics(broker)
    return f"schemas are in {', '.join(kept)}"


def venv(name, *packages):
    place = PLACE / name
    if not (place / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin/pip", "-q", "--disable-pip-version-check", "install", *packages], check=True)
    return place / "bin/python"


FAUST = """
import sys, faust
app = faust.App("counts", broker="kafka://" + sys.argv[1], store="memory://", web_enabled=False, topic_partitions=3, datadir=sys.argv[2])
words = app.topic("words", value_type=bytes, value_serializer="raw")
out = app.topic("out", value_serializer="raw")
counts = app.Table("counted", default=int, partitions=3)
@app.agent(words)
async def count(stream):
    async for word in stream.group_by(lambda w: w.decode(), name="word", partitions=3):
        counts[word.decode()] += 1
        await out.send(value=f"{word.decode()} {counts[word.decode()]}".encode())
faust.Worker(app, loglevel="info").execute_from_commandline()
"""

QUIX = """
import sys
from quixstreams import Application
app = Application(broker_address=sys.argv[1], consumer_group="counts", auto_offset_reset="earliest", state_dir=sys.argv[2], processing_guarantee="exactly-once")
rows = app.dataframe(app.topic("words", key_deserializer="str", value_deserializer="str"))
rows = rows.group_by(lambda word: word, name="word", value_deserializer="str", key_serializer="str", value_serializer="str", key_deserializer="str")
def count(word, state):
    total = state.get("total", 0) + 1
    state.set("total", total)
    return f"{word} {total}"
rows = rows.apply(count, stateful=True).to_topic(app.topic("out", value_serializer="str", key_serializer="str"))
app.run()
"""


def counted(options, folder, python, script):
    """Words are counted over a restart of the program: the last count of each word is exact."""
    (folder / "app.py").write_text(script)
    with Broker(options.binary) as broker:
        create(CLIENT, broker, "words", 3)
        create(CLIENT, broker, "out", 1)
        for round_ in (1, 2):
            produce(CLIENT, broker, "words", [Record(None, b"w%d" % (n % 10), partition=n % 3) for n in range(300)], codec="lz4")
            last = lambda: {word: int(total) for word, total in (value.decode().split() for value in values(broker, "out", topics(broker)["out"]))}
            with Program(python, folder / "app.py", broker.address, folder) as program:
                program.wait_until(lambda: sum(last().values()) >= 300 * round_, f"{300 * round_} counted words")
        assert last() == {f"w{n}": 60 for n in range(10)}, last()
    return "600 words, a restart between"


def case_faust(options, folder):
    return counted(options, folder, venv("faust", "faust-streaming", "cramjam"), FAUST)


def case_quixstreams(options, folder):
    return counted(options, folder, venv("quixstreams", "quixstreams"), QUIX)


def case_rsyslog(options, folder):
    """rsyslog's omkafka, as a shipper of logs that Debian has."""
    if not Path("/usr/lib/x86_64-linux-gnu/rsyslog/omkafka.so").exists():
        subprocess.run("apt-get update -qq && apt-get install -y -qq rsyslog-kafka", shell=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with Broker(options.binary) as broker:
        create(CLIENT, broker, "logs")
        log, place = folder / "app.log", folder / "rsyslog.conf"
        log.write_text("")
        place.write_text(f'''global(workDirectory="{folder}")
module(load="imfile" mode="inotify")
module(load="omkafka")
template(name="line" type="string" string="%msg%")
input(type="imfile" file="{log}" tag="app")
action(type="omkafka" broker=["{broker.address}"] topic="logs" template="line" confParam=["compression.codec=snappy"])
''')
        with Program("rsyslogd", "-n", "-f", place, "-i", folder / "pid") as program:
            with open(log, "a") as file:
                file.writelines(f"line {n}\n" for n in range(1000))
            program.wait_until(lambda: len(values(broker, "logs")) >= 1000, "1000 lines")
        assert values(broker, "logs") == [b"line %d" % n for n in range(1000)]
    return "1000 lines"


CASES = [("Kafka Connect standalone, file to file", case_connect), ("MirrorMaker 2 from Apache Kafka", case_mirror_maker), ("Apicurio Registry in a topic", case_registry),
         ("faust-streaming counts words", case_faust), ("quixstreams counts words, exactly once", case_quixstreams), ("rsyslog ships a log", case_rsyslog)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=str(HERE.parent / "target/release/dlog"))
    parser.add_argument("--case", default="")
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    for client in (CLIENT, "java"):
        subprocess.run([HERE / "install.sh", client], check=True, stdout=subprocess.DEVNULL)
    failed = 0
    for name, case in CASES:
        if options.case not in name:
            continue
        begin, folder = time.time(), Path(tempfile.mkdtemp(prefix="dlog-ecosystem-"))
        try:
            verdict, note = "ok", case(options, folder)
        except Exception as error:
            verdict, note, failed = "FAILED", f"{type(error).__name__}: {' '.join(str(error).split())[-900:]}", failed + 1
        shutil.rmtree(folder, ignore_errors=True)
        print(f"ecosystem        {verdict:<7} {name:<38} {time.time() - begin:6.1f} s  {note}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
