#!/usr/bin/env python3
"""Compose files after the conventions of other images: only the image lines are changed to ours. run.py [IMAGE] [WORD].

The first line of each file says where clients find the broker: outside, from this machine, and inside, from its network. Containers of other
software, which could not be pulled here, only sleep.
"""
import re, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from run import Record, assert_same, consume, create, produce, run  # noqa: E402

CLIENT = "confluent-kafka"
PATIENCE = 30


class At:
    def __init__(self, address):
        self.address = address


def shell(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stdout[-2000:]}")
    return done.stdout


def changed(text, image):
    """Kafka's image becomes ours; others become a shell that sleeps."""
    lines = []
    for line in text.splitlines():
        named = re.match(r"( *)image: (\S+)", line)
        if named and re.search(r"kafka", named[2]):
            line = f"{named[1]}image: {image}"
        elif named:
            line = f"{named[1]}image: {image}\n{named[1]}command: sleep 1000000"
        lines.append(line)
    return "\n".join(lines) + "\n"


def try_one(path, image):
    text = path.read_text()
    says = {word: value for word, value in re.findall(r"(outside|inside): (\S+)", text.splitlines()[0])}
    topics = re.search(r"topics: (.*)$", text.splitlines()[0])
    project = "dlog-" + path.stem
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        file = Path(folder) / "docker-compose.yml"
        file.write_text(changed(text, image).replace("./mounted", str(HERE / "mounted")))
        compose = ["docker-compose", "-p", project, "-f", str(file)]
        try:
            shell(*compose, "up", "-d")
            container = [line for line in shell(*compose, "ps", "-q").split() if "_zookeeper_" not in shell("docker", "inspect", "-f", "{{.Name}}", line)][0]
            end = time.time() + PATIENCE
            while shell("docker", "inspect", "-f", "{{.State.Health.Status}}", container).strip() != "healthy":
                assert time.time() < end, f"it does not become healthy: {shell(*compose, 'logs')[-2000:]}"
                time.sleep(0.2)
            sent = [Record(b"k", b"v", timestamp=1_700_000_000_000)]
            if "outside" in says:
                broker = At(says["outside"])
                create(CLIENT, broker, "t")
                produce(CLIENT, broker, "t", sent, codec="none")
                assert_same(sent, consume(CLIENT, broker, "t", start="beginning"))
                if topics:
                    names = {line[1] for line in run(CLIENT, "metadata", bootstrap=broker.address) if line[0] == "topic"}
                    assert set(topics[1].split()) <= names, names
            if "inside" in says:
                shell("docker", "run", "--rm", "--network", f"{project}_default", image, "bash", "-c",
                      f"dlog health --bootstrap-server {says['inside']} && dlog doctor --bootstrap-server {says['inside']} --http ${{0%:*}}:9644", says["inside"])
        finally:
            subprocess.run([*compose, "down", "-v"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    image = sys.argv[1] if len(sys.argv) > 1 else "dlog"
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    subprocess.run([HERE.parent / "install.sh", CLIENT], check=True)
    failed = 0
    for path in sorted(HERE.glob("*.yml")):
        if wanted not in path.name:
            continue
        begin = time.time()
        try:
            try_one(path, image)
            verdict = "ok"
        except Exception as error:
            verdict, failed = f"FAILED: {error}", failed + 1
        print(f"{path.stem:<32} {time.time() - begin:6.1f} s  {verdict}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
