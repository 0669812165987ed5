#!/usr/bin/env python3
"""Runs the examples of docs/examples.md: examples.py [--binary FILE] [--case WORD]. One line per case; exit code 0 if none failed.

Each example is a project of its own under examples/. Its commands are the ones that the page shows.
"""
import argparse, json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

from run import Broker, HERE

EXAMPLES = HERE / "examples"
PLACE = HERE.parent / "target/examples"


def python(*requirements):
    """The folder of a virtual environment with the requirements."""
    venv = PLACE / "venv"
    if not (venv / "bin/pip").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/pip", "-q", "--disable-pip-version-check", "install", *requirements], check=True)
    return venv / "bin"


def copy(name, folder):
    return Path(shutil.copytree(EXAMPLES / name, folder / name))


def run(command, folder, binary, *path, **variables):
    environment = {**os.environ, "PATH": ":".join([*map(str, path), str(Path(binary).parent), os.environ["PATH"]]), **variables}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"
    return done.stdout


def case_pytest(binary, folder):
    said = run("dlog run -- pytest -q", copy("pytest", folder), binary, python("-r", EXAMPLES / "pytest/requirements.txt"))
    assert "1 passed" in said, said


def case_go(binary, folder):
    said = run("dlog run -- go test -v ./...", copy("go", folder), binary)
    assert "--- PASS: TestAnOrderIsDelivered" in said, said


def case_spring(binary, folder):
    said = run("dlog run -- mvn -B test", copy("spring", folder), binary)
    assert "Tests run: 1, Failures: 0, Errors: 0" in said, said


def case_github_actions(binary, folder):
    """The steps of the workflow, beside a broker in place of its service; actions are skipped."""
    path = python("pyyaml", "-r", EXAMPLES / "pytest/requirements.txt")
    read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"
    text = (EXAMPLES / "github-actions/kafka-tests.yml").read_text()
    workflow = json.loads(subprocess.run([path / "python", "-c", read], input=text, capture_output=True, text=True, check=True).stdout)
    job = workflow["jobs"]["test"]
    assert job["services"]["kafka"]["ports"] == ["9092:9092", "9644:9644"], job
    project = copy("pytest", folder)
    with Broker(binary) as broker:
        here = lambda text: text.replace("localhost:9092", broker.address).replace("localhost:9644", broker.http)
        steps = [step for step in job["steps"] if "run" in step]
        assert [step["name"] for step in steps] == ["Install", "Wait for Kafka", "Test"], steps
        said = [run(here(step["run"]), project, binary, path, **{name: here(value) for name, value in step.get("env", {}).items()}) for step in steps]
    assert "1 passed" in said[-1], said


CASES = {"pytest": case_pytest, "Go": case_go, "Spring": case_spring, "GitHub Actions": case_github_actions}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=str(HERE.parent / "target/release/dlog"))
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    failures = 0
    for name, case in CASES.items():
        if options.case.lower() not in name.lower():
            continue
        with tempfile.TemporaryDirectory(prefix="dlog-examples-") as folder:
            try:
                case(options.binary, Path(folder))
                print(f"{'examples':<16} ok      {name}", flush=True)
            except Exception as error:
                failures += 1
                print(f"{'examples':<16} FAILED  {name}: {error}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
