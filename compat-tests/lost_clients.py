#!/usr/bin/env python3
"""`dlog doctor` and clients that are told an address which leads nowhere, behind a port published under another number: each must be found while it
tries and after it has gone, and be in the log once; and clients that are told the right address must not be found. lost_clients.py [BINARY] [NAME ...]"""
import json, os, socket, subprocess, sys, threading, time
from pathlib import Path

from run import Broker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHON = HERE / ".venv/bin/python"
# Long enough for a JVM on a busy machine, and for the 5 s after which a client is given up.
PATIENCE = 40
IDLE = 8

PYTHON_CLIENTS = {
    "kafka-python producer": "from kafka import KafkaProducer; KafkaProducer(bootstrap_servers=B).send('t', b'x').get(timeout=30)",
    "kafka-python consumer": "from kafka import KafkaConsumer; next(KafkaConsumer('t', bootstrap_servers=B, group_id='g'))",
    "aiokafka producer": """
import asyncio, aiokafka
async def main():
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=B)
    await producer.start()
    await producer.send_and_wait('t', b'x')
    await producer.stop()
asyncio.run(main())""",
    "aiokafka consumer": """
import asyncio, aiokafka
async def main():
    consumer = aiokafka.AIOKafkaConsumer('t', bootstrap_servers=B, group_id='g')
    await consumer.start()
    await consumer.getone()
asyncio.run(main())""",
    "confluent-kafka producer": "import confluent_kafka as k; p = k.Producer({'bootstrap.servers': B}); p.produce('t', b'x'); p.flush(30)",
    "confluent-kafka consumer": "import confluent_kafka as k; c = k.Consumer({'bootstrap.servers': B, 'group.id': 'g'}); c.subscribe(['t']); c.poll(30)",
}
KCAT = {"kcat -P": ["-P", "-t", "t"], "kcat -C": ["-C", "-t", "t"], "kcat -G": ["-G", "g", "t"], "kcat -L": ["-L"], "kcat -L -t": ["-L", "-t", "t"]}
JAVA = {
    "Java producer": ["ConsoleProducer", "--topic", "t"],
    "Java consumer": ["consumer.ConsoleConsumer", "--topic", "t"],
    "kafka-topics": ["TopicCommand", "--list"],
}
# These have what they want from the address that they bootstrap with.
NEVER_LOST = {"kcat -L", "kcat -L -t"}


def command(name, bootstrap):
    if name in PYTHON_CLIENTS:
        return [PYTHON, "-c", f"B = {bootstrap!r}\n{PYTHON_CLIENTS[name]}"]
    if name in KCAT:
        return ["kcat", "-b", bootstrap, *KCAT[name]]
    tool, *arguments = JAVA[name]
    return ["java", "-cp", f"{HERE}/java/target/tools/*", f"org.apache.kafka.tools.{tool}", "--bootstrap-server", bootstrap, *arguments]


def forward(target):
    """A port that leads to another one, as one that Docker publishes."""
    outside = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def accept():
        while True:
            client = outside.accept()[0]
            broker = socket.create_connection(("127.0.0.1", target))
            for pair in ((client, broker), (broker, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return outside.getsockname()[1]


def found(broker, *more):
    done = subprocess.run([broker.binary, "doctor", "--bootstrap-server", broker.address, "--http", broker.http, "--output", "json", *more],
                          capture_output=True, text=True)
    return [finding for finding in json.loads(done.stdout)["findings"] if finding["kind"] == "client-never-came"]


def one(binary, name, advertised):
    """What is wrong, or nothing."""
    broker = Broker(binary, *([f"advertised.listeners=PLAINTEXT://{advertised}"] if advertised else []), command=("--create-topics", "t:1:1"))
    bootstrap = f"127.0.0.1:{forward(broker.port)}" if advertised else broker.address
    is_lost = bool(advertised) and name not in NEVER_LOST
    client = subprocess.Popen(command(name, bootstrap), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client.stdin.write(b"x\n")
    client.stdin.close()
    try:
        end = time.time() + (PATIENCE if is_lost else IDLE)
        while not (during := found(broker)) and time.time() < end:
            time.sleep(0.5)
        client.kill()
        client.wait()
        time.sleep(2)
        after = found(broker)
        lines = [line for line in open(broker.log.name) if "WARN" in line and "never connected" in line]
        if [bool(during), bool(after), len(lines)] != ([True, True, 1] if is_lost else [False, False, 0]):
            return f"found while it tries: {bool(during)}, after: {bool(after)}, lines of the log: {len(lines)}"
        if is_lost and (f"was told {advertised}" not in after[0]["text"] or not after[0]["seen"]["count"]):
            return f"{after[0]}"
        if found(broker, "--clear"):
            return "it stays after --clear"
    finally:
        broker.remove()
    return None


def main(binary, names):
    names = names or [*PYTHON_CLIENTS, *KCAT, *JAVA]
    for client in sorted({"kafka-tools" if name in JAVA else name.split()[0] for name in names}):
        subprocess.run([HERE / "install.sh", client], check=True)
    failed = 0
    for name in names:
        for advertised in ("no-such-host.invalid:9092", "127.0.0.1:9", None):
            wrong = one(binary, name, advertised)
            failed += wrong is not None
            print(f"{'FAILED' if wrong else 'ok':7} {name}, told {advertised or 'the right address'}{': ' + wrong if wrong else ''}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    binary = arguments.pop(0) if arguments and os.path.exists(arguments[0]) else str(ROOT / "target/release/dlog")
    sys.exit(main(binary, arguments))
