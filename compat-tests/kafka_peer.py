"""A real Apache Kafka beside our broker: one node, in a directory of its own that goes with it.

    kafka_peer.py            installs, starts, prints the address, and stops when its input is closed
"""
import os, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path

JAVA = Path(__file__).resolve().parent / "java"
JARS = JAVA / "target" / "tools"
VERSION = "4.3.1"
# What Kafka's own kafka-server-start.sh gives the virtual machine.
OPTIONS = ["-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
           "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]
CLUSTER = "5L6g3nShT-eMCtK--X86sw"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def install():
    if not JARS.is_dir():
        subprocess.run(["mvn", "-q", "-B", "-f", str(JAVA / "tools" / "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime",
                        f"-DoutputDirectory={JARS}"], check=True, stdout=sys.stderr)


def is_ready(process, port, patience):
    """Whether the broker answers an ApiVersions request before it ends. A connection is no sign: the port is bound before the data is opened."""
    request = b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff"
    deadline = time.time() + patience
    while time.time() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
                s.sendall(request)
                if s.recv(4):
                    return True
        except OSError:
            pass
        time.sleep(0.02)
    return False


class Kafka:
    """A running broker; `settings` are more lines of its properties."""

    def __init__(self, *settings):
        install()
        self.folder = Path(tempfile.mkdtemp(prefix="kafka-peer-"))
        self.port, controller = free_port(), free_port()
        properties = [
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAINTEXT", f"log.dirs={self.folder}/data",
            "offsets.topic.replication.factor=1", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
            "share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1", "group.initial.rebalance.delay.ms=0",
            *settings,
        ]
        self.properties = self.folder / "server.properties"
        self.properties.write_text("\n".join(properties) + "\n")
        self.java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", self.properties)
        self.log = open(self.folder / "server.log", "w")
        self.start()

    def start(self):
        begin = time.time()
        self.process = subprocess.Popen(["java", *OPTIONS, "-cp", f"{JARS}/*", "kafka.Kafka", str(self.properties)], stdout=self.log, stderr=self.log)
        self.wait_ready()
        self.ready_seconds = time.time() - begin

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @staticmethod
    def java(*words):
        done = subprocess.run(["java", "-cp", f"{JARS}/*", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stdout[-1000:])

    def wait_ready(self):
        if is_ready(self.process, self.port, 90):
            return
        raise RuntimeError(f"Apache Kafka did not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def stop(self):
        """A clean stop, unless it takes too long."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def remove(self):
        if self.process.poll() is None:
            self.stop()
        self.log.close()
        shutil.rmtree(self.folder)


if __name__ == "__main__":
    peer = Kafka(*sys.argv[1:])
    try:
        print(peer.address, peer.process.pid, f"{peer.ready_seconds:.3f}", flush=True)
        sys.stdin.read()
    finally:
        peer.remove()
