#!/usr/bin/env python3
"""The dashboard and the alert rules of docker/ against a broker under load, scraped by Debian's Prometheus: every expression must give data."""
import json, re, shutil, subprocess, sys, tempfile, time, urllib.parse, urllib.request
from pathlib import Path

from run import Broker, Driver, create, free_port

ROOT = Path(__file__).resolve().parent.parent
CLIENT = "confluent-kafka"
PATIENCE = 60
# What Grafana puts in for the dashboard's variables.
VARIABLES = {"$instance": ".*", "$topic": ".*", "$group": ".*"}


def expressions():
    """(where, expression) of each panel, and of each alert without the limit that it is compared with: an alert that is silent gives nothing."""
    dashboard = json.loads((ROOT / "docker/grafana/dashboards/dlog.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield f"panel {panel['title']}", expression
    for name, expression in re.findall(r"- alert: (\S+)\n\s+expr: (.+)\n", (ROOT / "docker/prometheus/alerts.yml").read_text()):
        yield f"alert {name}", re.sub(r" [<>] [0-9.]+\)", " >= bool 0)", re.sub(r" [<>] [0-9.]+$", "", expression))


def query(port, expression):
    """The samples that are numbers."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    answer = json.load(urllib.request.urlopen(url, timeout=10))
    assert answer["status"] == "success", answer
    return [sample for sample in answer["data"]["result"] if sample["value"][1] != "NaN"]


def main(binary):
    if not shutil.which("prometheus"):
        subprocess.run("apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus", shell=True, check=True)
    subprocess.run([ROOT / "compat-tests/install.sh", CLIENT], check=True)
    subprocess.run(["promtool", "check", "rules", ROOT / "docker/prometheus/alerts.yml"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        for file in (ROOT / "docker/prometheus/alerts.yml", ROOT / "compat-tests/alerts.test.yml"):
            shutil.copy(file, folder)
        subprocess.run(["promtool", "test", "rules", "alerts.test.yml"], cwd=folder, check=True)
    broker, port = Broker(binary), free_port()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        config = (ROOT / "docker/prometheus/prometheus.yml").read_text().replace("dlog:9644", broker.http).replace("5s", "1s")
        (folder / "prometheus.yml").write_text(config)
        shutil.copy(ROOT / "docker/prometheus/alerts.yml", folder)
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        create(CLIENT, broker, "t", 2)
        group = Driver(CLIENT, "group", bootstrap=broker.address, topic="t", group="readers")
        stream = Driver(CLIENT, "stream", bootstrap=broker.address, topic="t", rate=200, partitions=2)
        try:
            missing, end = list(expressions()), time.time() + PATIENCE
            count = len(missing)
            while missing and time.time() < end:
                time.sleep(1)
                try:
                    missing = [(where, expression) for where, expression in missing if not query(port, expression)]
                except OSError:
                    pass
            for where, expression in missing:
                print(f"no data: {where}: {expression}")
            print(f"{count - len(missing)} of {count} expressions give data")
        finally:
            for process in (stream, group):
                process.end()
            prometheus.terminate()
            prometheus.wait()
            broker.remove()
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/release/dlog")))
