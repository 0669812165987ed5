#!/usr/bin/env python3
"""Compose files after the conventions of other images: only the image lines are changed to ours. compose_files.py [IMAGE] [WORD].

The first line of each file says where clients find the broker: outside, from this machine, and inside, from its network. Containers of other
software, which could not be pulled here, only sleep.
"""
import re, subprocess, sys, tempfile, time
from pathlib import Path

from containers import CLIENT, IMAGE, PATIENCE, healthy, run_cases, shell, there_and_back
from run import run

# The plugin of today, or the program of before.
COMPOSE = ["docker", "compose"] if subprocess.run(["docker", "compose", "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0 else ["docker-compose"]
FILES = Path(__file__).resolve().parent / "compose-files"


def changed(text):
    """The images of Kafka and Redpanda become ours; others become a shell that sleeps."""
    lines = []
    # -p names the project; docker-compose of before does not know `name`.
    for line in (line for line in text.splitlines() if not line.startswith("name:")):
        named = re.match(r"( *)image: (\S+)", line)
        if named and re.search(r"kafka|/redpanda:", named[2]):
            line = f"{named[1]}image: {IMAGE}"
        elif named:
            line = f"{named[1]}image: {IMAGE}\n{named[1]}command: sleep 1000000"
        lines.append(line)
    return "\n".join(lines) + "\n"


def try_one(path):
    text = path.read_text()
    says = {word: value for word, value in re.findall(r"(outside|inside): (\S+)", text.splitlines()[0])}
    topics = re.search(r"topics: (.*)$", text.splitlines()[0])
    project = "dlog-" + path.stem
    with tempfile.TemporaryDirectory(dir=FILES) as folder:
        file = Path(folder) / "docker-compose.yml"
        file.write_text(changed(text).replace("./mounted", str(FILES / "mounted")))
        compose = [*COMPOSE, "-p", project, "-f", str(file)]
        try:
            shell(*compose, "up", "-d")
            services = {line: shell("docker", "inspect", "-f", '{{index .Config.Labels "com.docker.compose.service"}}', line) for line in shell(*compose, "ps", "-q").split()}
            container = [line for line, service in services.items() if not re.match("zookeeper|init|console", service)][0]
            healthy(container)
            if "outside" in says:
                there_and_back(says["outside"])
                missing, end = set(topics[1].split()) if topics else set(), time.time() + PATIENCE
                while missing:
                    assert time.time() < end, f"{missing} are not created"
                    missing -= {line[1] for line in run(CLIENT, "metadata", bootstrap=says["outside"]) if line[0] == "topic"}
            if "inside" in says:
                network = shell("docker", "inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}", container)
                shell("docker", "run", "--rm", "--network", network, IMAGE, "bash", "-c",
                      f"dlog health --bootstrap-server {says['inside']} && dlog doctor --bootstrap-server {says['inside']} --http ${{0%:*}}:9644", says["inside"])
        finally:
            subprocess.run([*compose, "down", "-v"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(run_cases([(path.stem, lambda path=path: try_one(path)) for path in sorted(FILES.glob("*.yml"))]))
