#!/usr/bin/env python3
"""The image under the real Testcontainers modules of Python: testcontainers.py [IMAGE]. Their packages are installed into a folder of their own."""
import os, subprocess, sys, time
from pathlib import Path

VENV = Path(__file__).resolve().parent / ".venv"
PACKAGES = ["testcontainers", "packaging", "kafka-python"]


def main(image):
    from kafka import KafkaConsumer, KafkaProducer
    from testcontainers.community.kafka import KafkaContainer, RedpandaContainer

    # Kraft mode wants a tag that is a version from 7.0.0 on.
    tagged = f"{image}:7.6.0"
    subprocess.run(["docker", "tag", image, tagged], check=True)
    modules = {
        "KafkaContainer": lambda: KafkaContainer(image),
        "KafkaContainer.with_kraft": lambda: KafkaContainer(tagged).with_kraft(),
        "RedpandaContainer": lambda: RedpandaContainer(image),
    }
    for name, make in modules.items():
        begin = time.time()
        with make() as container:
            ready = time.time() - begin
            address = container.get_bootstrap_server()
            producer = KafkaProducer(bootstrap_servers=address)
            producer.send("t", b"x").get(10)
            producer.close()
            consumer = KafkaConsumer("t", bootstrap_servers=address, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
            assert [record.value for record in [next(consumer)]] == [b"x"]
            consumer.close()
        print(f"{name:<32} ready after {ready:4.1f} s  ok", flush=True)


if __name__ == "__main__":
    python = VENV / "bin" / "python"
    if Path(sys.prefix) != VENV:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
            subprocess.run([python, "-m", "pip", "-q", "--disable-pip-version-check", "install", *PACKAGES], check=True)
        # The container that cleans up after others is an image that may not be had here.
        os.execve(python, [python, __file__, *sys.argv[1:]], {**os.environ, "TESTCONTAINERS_RYUK_DISABLED": "true"})
    main(sys.argv[1] if len(sys.argv) > 1 else "dlog")
