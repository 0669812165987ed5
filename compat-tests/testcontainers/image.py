#!/usr/bin/env python3
"""The image as start scripts of others use it: image.py [IMAGE] [WORD]. Each case is what a Testcontainers module does, step by step, with Docker's own
command line: create, copy files in, start, wait for the line that the module waits for, and then a record through the port that the module hands out.
"""
import io, re, subprocess, sys, tarfile, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from containers import CLIENT, IMAGE, PATIENCE, healthy, run_cases, shell, there_and_back  # noqa: E402
from run import free_port, run  # noqa: E402

RUNNING = r".*Transitioning from RECOVERY to RUNNING.*"
STARTED = r".*Kafka Server started.*"


def docker(*words, **more):
    return shell("docker", *words, **more)


def kraft(listeners, **more):
    """What modules of KRaft brokers set in common."""
    return {
        "KAFKA_LISTENERS": listeners,
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "BROKER",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_NODE_ID": "1",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9094",
        **more,
    }


def waiting_for(script, then):
    """The command of a module that copies its script into the running container."""
    return f"while [ ! -f {script} ]; do sleep 0.1; done; {then}"


class Container:
    """A container with a port for clients, which is known once it runs."""

    def __init__(self, *words, environment=None, command=(), port=9092):
        options = [word for key, value in (environment or {}).items() for word in ("-e", f"{key}={value}")]
        self.port = port
        self.id = docker("create", "-p", f"127.0.0.1::{port}", *options, *words, IMAGE, *command)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["docker", "rm", "-f", "-v", self.id], stdout=subprocess.DEVNULL)

    def start(self):
        docker("start", self.id)

    @property
    def address(self):
        return docker("port", self.id, str(self.port)).splitlines()[0]

    @property
    def number(self):
        """The port of this machine that leads to the container's."""
        return self.address.rsplit(":", 1)[1]

    @property
    def ip(self):
        return docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.id)

    @property
    def hostname(self):
        return docker("inspect", "-f", "{{.Config.Hostname}}", self.id)

    def copy(self, path, text, mode=0o777):
        """As the API's archive does it: as root, with this mode."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(text.encode()), mode
            tar.addfile(entry, io.BytesIO(text.encode()))
        docker("cp", "-", f"{self.id}:/", input=packed.getvalue())

    def wait_for(self, line):
        end = time.time() + PATIENCE
        while time.time() < end:
            log = docker("logs", self.id)
            if re.search(line, log):
                return
            assert docker("inspect", "-f", "{{.State.Running}}", self.id) == "true", f"it ended: {log}"
            time.sleep(0.05)
        raise AssertionError(f"no line {line!r} within {PATIENCE} s: {docker('logs', self.id)}")

    def serve(self, address=None):
        """A record there and back."""
        there_and_back(address or f"localhost:{self.number}")


def case_plain():
    with Container() as container:
        container.start()
        container.wait_for(STARTED)
        docker("exec", container.id, "dlog", "health")
        healthy(container.id)
        assert docker("exec", container.id, "id", "-u") != "0", "it runs as root"
        docker("stop", container.id)
        assert docker("inspect", "-f", "{{.State.ExitCode}}", container.id) == "0"


def case_by_default_the_host_and_other_containers_are_served():
    # The port outside is that inside, as most people publish it; other tests may have it.
    with Container("-p", "9092:9092", port=9644) as container:
        container.start()
        container.wait_for(STARTED)
        container.serve("localhost:9092")
        told = docker("run", "--rm", IMAGE, "dlog", "doctor", "--bootstrap-server", f"{container.ip}:9092", "--http", f"{container.ip}:9644")
        assert told == f"no problems found with {container.ip}:9092", told
        assert "localhost:9092" in str(run(CLIENT, "metadata", bootstrap="localhost:9092"))


def case_data_stays_in_the_volume():
    volume = docker("volume", "create")
    try:
        for round in range(2):
            with Container("-v", f"{volume}:/var/lib/kafka/data", environment={"KAFKA_CREATE_TOPICS": "kept:2:1"}) as container:
                container.start()
                container.wait_for(STARTED)
                said = docker("logs", container.id)
                assert ("seeded topics=1" in re.sub(r"\x1b\[[0-9;]*m", "", said)) == (round == 0), said
                docker("stop", container.id)
    finally:
        docker("volume", "rm", volume)


def case_every_form_of_the_command_serves_other_containers_and_keeps_its_data():
    # Port, advertised address and volume are those of the default command, however the broker is started.
    forms = {
        "the default": [],
        "dlog": ["dlog"],
        "dlog serve": ["dlog", "serve"],
        "serve": ["serve"],
        "run": ["/etc/kafka/docker/run"],
        "options first": ["--log", "info", "serve"],
        "dlog --ephemeral": ["dlog", "--ephemeral"],
        "--ephemeral": ["--ephemeral"],
    }
    told = {}
    for name, command in forms.items():
        volume = docker("volume", "create")
        try:
            with Container("-v", f"{volume}:/var/lib/kafka/data", command=command) as container:
                container.start()
                container.wait_for(STARTED)
                healthy(container.id)
                asked = docker("run", "--rm", IMAGE, "dlog", "doctor", "-b", f"{container.ip}:9092", "--http", f"{container.ip}:9644")
                assert asked == f"no problems found with {container.ip}:9092", f"{name}: {asked}"
                told[name] = docker("run", "--rm", IMAGE, "rpk", "cluster", "info", "--brokers", f"{container.ip}:9092").replace(container.ip, "IP")
                told[name] = told[name].split("BROKERS")[1]
                kept = docker("run", "--rm", "-v", f"{volume}:/v", IMAGE, "ls", "/v")
                assert ("__cluster_metadata-0" in kept) == ("ephemeral" not in name), f"{name}: {kept}"
                docker("stop", container.id)
                assert docker("inspect", "-f", "{{.State.ExitCode}}", container.id) == "0", name
        finally:
            docker("volume", "rm", volume)
    assert len(set(told.values())) == 1, told


def case_the_entrypoint_leaves_commands_alone():
    assert docker("run", "--rm", IMAGE, "echo", "a  b") == "a  b"
    assert docker("run", "--rm", IMAGE, "bash", "-c", "echo $0 $1", "x", "y z") == "x y z"
    assert docker("run", "--rm", IMAGE, "--version").startswith("dlog ")
    assert docker("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", "echo own") == "own"
    nonsense = subprocess.run(["docker", "run", "--rm", IMAGE, "nonsense"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert nonsense.returncode == 2 and b"nonsense" in nonsense.stdout, nonsense.stdout


def case_rpk_starts_a_broker_only_by_start():
    for words in [["rpk", "group", "list"], ["rpk"], ["redpanda"], ["rpk", "redpanda", "tune", "all"], ["redpanda", "start", "--kafka-adr", "x:1"]]:
        done = subprocess.run(["docker", "run", "--rm", IMAGE, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
        assert done.returncode == 2 and b"Started" not in done.stdout, f"{words}: {done.stdout}"
    assert b"--kafka-addr" in done.stdout, done.stdout


def case_redpandas_volume_is_used():
    for mode in (["redpanda", "start"], ["start", "--smp 1"], ["rpk", "redpanda", "start"], []):
        volume = docker("volume", "create")
        try:
            for round in range(2):
                with Container("-v", f"{volume}:/var/lib/redpanda/data", environment={"KAFKA_CREATE_TOPICS": "kept:2:1"}, command=mode) as container:
                    container.start()
                    container.wait_for("Successfully started Redpanda!" if mode else STARTED)
                    said = docker("logs", container.id)
                    assert ("seeded topics=1" in re.sub(r"\x1b\[[0-9;]*m", "", said)) == (round == 0), f"{mode}: {said}"
                    docker("stop", container.id)
        finally:
            docker("volume", "rm", volume)


def case_security_settings_stop_the_start():
    for environment in ({"KAFKA_CLIENT_USERS": "me"}, {"KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN"}, {"RP_BOOTSTRAP_USER": "a:b"}):
        with Container(environment=environment) as container:
            container.start()
            docker("wait", container.id)
            said = docker("logs", container.id)
            assert docker("inspect", "-f", "{{.State.ExitCode}}", container.id) == "1" and "--ignore-security-settings" in said, said


def case_size():
    size = int(docker("image", "inspect", "-f", "{{.Size}}", IMAGE))
    assert size < 25_000_000, f"{size} bytes"


def java(script, run):
    environment = kraft(
        "PLAINTEXT://0.0.0.0:9092,BROKER://0.0.0.0:9093,CONTROLLER://0.0.0.0:9094",
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
        KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS="1",
        KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
        KAFKA_LOG_FLUSH_INTERVAL_MESSAGES=str((1 << 63) - 1),
        KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
        CLUSTER_ID="4L6g3nShT-eMCtK--X86sw",
    )
    with Container(environment=environment, command=["sh", "-c", waiting_for(script, script)]) as container:
        container.start()
        told = f"PLAINTEXT://localhost:{container.number},BROKER://{container.hostname}:9093"
        container.copy(script, f"#!/bin/bash\nexport KAFKA_ADVERTISED_LISTENERS={told}\n{run} \n")
        container.wait_for(RUNNING)
        container.serve()
        docker("exec", container.id, "dlog", "health", "--bootstrap-server", f"{container.hostname}:9093")


def case_java_kafka():
    java("/tmp/testcontainers_start.sh", "/etc/kafka/docker/run")


def case_java_confluent():
    java("/tmp/testcontainers_start.sh", "/etc/confluent/docker/run")


def python(zookeeper):
    environment = {
        "KAFKA_LISTENERS": "PLAINTEXT://0.0.0.0:9093,BROKER://0.0.0.0:9092",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "BROKER",
        "KAFKA_BROKER_ID": "1",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "1",
        "KAFKA_LOG_FLUSH_INTERVAL_MESSAGES": "10000000",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    command = ["sh", "-c", waiting_for("/tc-start.sh", "sh /tc-start.sh")]
    with Container(environment=environment, command=command, port=9093) as container:
        container.start()
        told = f"PLAINTEXT://localhost:{container.number},BROKER://$(hostname -i):9092"
        lines = ["#!/bin/bash", ". /etc/confluent/docker/bash-config"]
        if zookeeper:
            lines += [
                "echo 'clientPort=2181' > zookeeper.properties", "echo 'dataDir=/var/lib/zookeeper/data' >> zookeeper.properties",
                "zookeeper-server-start zookeeper.properties &", "export KAFKA_ZOOKEEPER_CONNECT='localhost:2181'",
            ]
        else:
            lines += [
                "sed -i '/KAFKA_ZOOKEEPER_CONNECT/d' /etc/confluent/docker/configure",
                "echo 'kafka-storage format --ignore-formatted -t 4L6g3nShT-eMCtK--X86sw -c /etc/kafka/kafka.properties' >> /etc/confluent/docker/configure",
            ]
        lines += [f"export KAFKA_ADVERTISED_LISTENERS={told}", "/etc/confluent/docker/configure", "echo '' > /etc/confluent/docker/ensure",
                  "/etc/confluent/docker/launch"]
        container.copy("/tc-start.sh", "\n".join(lines) + "\n")
        container.wait_for(r".*\[KafkaServer id=\d+\] started.*" if zookeeper else STARTED)
        container.serve()


def case_python_kraft():
    python(zookeeper=False)


def case_python_zookeeper():
    python(zookeeper=True)


def case_go_kafka():
    listeners = "PLAINTEXT://0.0.0.0:9093,BROKER://0.0.0.0:9092,CONTROLLER://0.0.0.0:9094"
    environment = kraft(listeners, KAFKA_REST_BOOTSTRAP_SERVERS=listeners, KAFKA_BROKER_ID="1", CLUSTER_ID="test-cluster")
    script = "/usr/sbin/testcontainers_start.sh"
    command = ["-c", waiting_for(script, f"bash {script}")]
    with Container("--entrypoint", "sh", environment=environment, command=command, port=9093) as container:
        container.start()
        told = f"PLAINTEXT://localhost:{container.number},BROKER://{container.hostname}:9092"
        container.copy(script, "\n".join([
            "#!/bin/bash", "source /etc/confluent/docker/bash-config", f"export KAFKA_ADVERTISED_LISTENERS={told}",
            "echo Starting Kafka KRaft mode", "sed -i '/KAFKA_ZOOKEEPER_CONNECT/d' /etc/confluent/docker/configure",
            "echo 'kafka-storage format --ignore-formatted -t \"$(kafka-storage random-uuid)\" -c /etc/kafka/kafka.properties' >> /etc/confluent/docker/configure",
            "echo '' > /etc/confluent/docker/ensure", "/etc/confluent/docker/configure", "/etc/confluent/docker/launch", "",
        ]), mode=0o755)
        container.wait_for(RUNNING)
        container.serve()


def case_node_kafka():
    environment = kraft("PLAINTEXT://0.0.0.0:9093,BROKER://0.0.0.0:9092,CONTROLLER://0.0.0.0:9094", CLUSTER_ID="AABBCCDDEEFFGGHHIIJJKK")
    script = "/testcontainers_start.sh"
    command = ["-c", waiting_for(script, script)]
    with Container("--entrypoint", "sh", environment=environment, command=command, port=9093) as container:
        container.start()
        told = f"PLAINTEXT://localhost:{container.number},BROKER://{container.hostname}:9092"
        container.copy(script, f"#!/bin/bash\nexport KAFKA_ADVERTISED_LISTENERS={told}\n/etc/confluent/docker/run\n")
        container.wait_for(STARTED)
        container.serve()


def case_rust_apache():
    environment = {
        "CLUSTER_ID": "5L6g3nShT-eMCtK--X86sw",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": "PLAINTEXT://0.0.0.0:9092,BROKER://0.0.0.0:9093,CONTROLLER://0.0.0.0:9094",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "BROKER",
        "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://localhost:9092,BROKER://localhost:9093",
        "KAFKA_BROKER_ID": "1",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9094",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    }
    script = "/opt/kafka/testcontainers_start.sh"
    command = ["-c", waiting_for(script, f"chmod 755 {script} && {script}")]
    with Container("--entrypoint", "bash", environment=environment, command=command) as container:
        container.start()
        told = f"PLAINTEXT://127.0.0.1:{container.number},BROKER://localhost:9093"
        docker("exec", container.id, "bash", "-c",
               f"echo '#!/usr/bin/env bash\nexport KAFKA_ADVERTISED_LISTENERS={told}\n/etc/kafka/docker/run\n' > {script}")
        container.wait_for(STARTED)
        container.serve()


def case_java_redpanda():
    script = "\n".join(["#!/usr/bin/env bash", "until grep -q \"# Injected by testcontainers\" \"/etc/redpanda/redpanda.yaml\"", "do", "  sleep 0.1", "done",
                        "/entrypoint.sh $@", ""])
    command = ["/entrypoint-tc.sh", "redpanda", "start", "--mode=dev-container", "--smp=1", "--memory=1G"]
    with Container("--entrypoint", "", "--user", "root:root", command=command) as container:
        container.copy("/entrypoint-tc.sh", script)
        container.start()
        container.copy("/etc/redpanda/redpanda.yaml", f"""# Injected by testcontainers
redpanda:
  admin:
    address: 0.0.0.0
    port: 9644

  kafka_api:
    - address: 0.0.0.0
      name: external
      port: 9092
      authentication_method: none

    # This listener is required for the schema registry client. The schema
    # registry client connects via an advertised listener like a normal Kafka
    # client would do. It can't use the other listener because the mapped
    # port is not accessible from within the Redpanda container.
    - address: 0.0.0.0
      name: internal
      port: 9093
      authentication_method: none

  advertised_kafka_api:
    - address: localhost
      name: external
      port: {container.number}
    - address: 127.0.0.1
      name: internal
      port: 9093

schema_registry:
  schema_registry_api:
    - address: "0.0.0.0"
      port: 8081
""")
        container.wait_for(r".*Successfully started Redpanda!.*")
        container.serve()


def case_python_redpanda():
    script = "/var/lib/redpanda/tc-start.sh"
    command = ["-c", waiting_for(script, f"sh {script}")]
    with Container("--entrypoint", "sh", command=command) as container:
        container.start()
        container.copy(script, "#!/bin/bash\n/usr/bin/rpk redpanda start --mode dev-container --smp 1 --memory 1G "
                       "--kafka-addr PLAINTEXT://0.0.0.0:29092,OUTSIDE://0.0.0.0:9092 "
                       f"--advertise-kafka-addr PLAINTEXT://127.0.0.1:29092,OUTSIDE://localhost:{container.number}", mode=0o644)
        container.wait_for(r".*Started Kafka API server.*")
        container.serve()


def case_redpanda_by_flags():
    # The port must be known before.
    port = free_port()
    command = ["redpanda", "start", "--smp", "1", "--kafka-addr", "internal://0.0.0.0:9092,external://0.0.0.0:19092",
               "--advertise-kafka-addr", f"internal://redpanda:9092,external://localhost:{port}", "--overprovisioned"]
    with Container("-p", f"127.0.0.1:{port}:19092", "--entrypoint", "/entrypoint.sh", command=command) as container:
        container.start()
        container.wait_for("Successfully started Redpanda!")
        container.serve(f"localhost:{port}")


if __name__ == "__main__":
    sys.exit(run_cases([(name[5:].replace("_", " "), case) for name, case in globals().items() if name.startswith("case_")]))
