"""What the cases of the image, which is the first word of the command line, share: Docker's command line, a record there and back, and a line a case."""
import subprocess, sys, time
from pathlib import Path

from run import At, Record, assert_same, consume, create, produce

IMAGE = sys.argv[1] if len(sys.argv) > 1 else "dlog"
# Only cases whose name holds this are run.
WANTED = sys.argv[2] if len(sys.argv) > 2 else ""
HERE = Path(__file__).resolve().parent
# The client that speaks with each broker.
CLIENT = "confluent-kafka"
PATIENCE = 30


def shell(*words, **more):
    """What a command prints; an error with it where the command fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, **more)
    text = done.stdout.decode()
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}: {text[-2000:]}")
    return text.strip()


def healthy(container):
    """Waits until Docker's health check is content."""
    end = time.time() + PATIENCE
    while shell("docker", "inspect", "-f", "{{.State.Health.Status}}", container) != "healthy":
        assert time.time() < end, f"it does not become healthy: {shell('docker', 'logs', container)[-2000:]}"
        time.sleep(0.2)


def there_and_back(address):
    """Creates a topic, sends a record and reads it."""
    broker, sent = At(address), [Record(b"k", b"v", timestamp=1_700_000_000_000)]
    create(CLIENT, broker, "t")
    produce(CLIENT, broker, "t", sent, codec="none")
    assert_same(sent, consume(CLIENT, broker, "t", start="beginning"))


def run_cases(cases):
    """Runs (name, case), a line each; the exit code."""
    subprocess.run([HERE / "install.sh", CLIENT], check=True)
    failed = 0
    for name, case in cases:
        if WANTED not in name:
            continue
        begin = time.time()
        try:
            case()
            verdict = "ok"
        except Exception as error:
            verdict, failed = f"FAILED: {error}", failed + 1
        print(f"{name:<52} {time.time() - begin:6.1f} s  {verdict}", flush=True)
    return 1 if failed else 0
