#!/usr/bin/env python3
"""Our broker and Apache Kafka in turn under the same load: `make bench`.

    compare.py [--quick] [--only WORD] [--brokers dlog,kafka]

Prints a table (best and median of the repeats, and our part of Kafka's best), and writes bench.json and bench.svg into target/bench/.
CPU is that of the broker's process (user and system, from /proc), per GB of what users send. Before each measurement the same load runs
for a while: page cache that is touched first and code that is not compiled yet would be measured otherwise. Both brokers run, and each repeat
goes to one and then to the other: what else the machine does changes from minute to minute, and so it falls on both.
"""
import argparse, contextlib, json, mmap, os, re, signal, socket, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "compat-tests"))
import kafka_peer  # noqa: E402

# Both look for segments to delete twice a second.
RETENTION = "log.retention.check.interval.ms=500"
# More than one broker has at any time.
TOUCHED_BYTES = 4 << 30
# Settings of a topic whose records go soon, so that pages of memory are written again: else fresh pages would be measured.
REUSED = ["segment.bytes=33554432", "retention.bytes=67108864", "file.delete.delay.ms=0"]
# Batches of the sixteen producers: records of 1 KB in each, and megabytes of all.
SYNCED = {"1 KB": (1, 10), "4 KB": (4, 30), "16 KB": (15, 250)}
# Of the log for random and cold reads.
BIG_BYTES = 10 << 30
# Takes the place of a broker where the loops that none can do without are measured.
BARE = "bare loop"
TICK = os.sysconf("SC_CLK_TCK")
OUT = ROOT / "target" / "bench"


def say(text):
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def touch_memory():
    """Takes most of the free memory once and gives it back: on a virtual machine the first touch of a page costs many times a later one."""
    available = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) * 1024
    with mmap.mmap(-1, max(min(available - (3 << 30), TOUCHED_BYTES), 1 << 20)) as memory:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
        say(f"touched {len(memory) >> 30} GiB of memory")


class Dlog:
    name = "dlog"
    # How much of a measured load warms it: caches only.
    warm = 0.5

    def __init__(self, *settings):
        self.folder = tempfile.TemporaryDirectory(prefix="dlog-bench-")
        self.port = kafka_peer.free_port()
        command = [str(ROOT / "target/release/dlog"), "serve", "--data", self.folder.name, "--listen", self.address, "--http", "127.0.0.1:0",
                   "--set", "group.initial.rebalance.delay.ms=0"]
        for setting in [RETENTION, *settings]:
            command += ["--set", setting]
        begin = time.time()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.strip().startswith("plaintext"):
                break
        self.ready_seconds = time.time() - begin

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def remove(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.process.stdout.close()
        self.folder.cleanup()


class Fsync(Dlog):
    name = "dlog, fsync"

    def __init__(self):
        super().__init__("durability.profile=fsync")


class Kafka(kafka_peer.Kafka):
    name = "Apache Kafka"

    # The virtual machine compiles what is hot: its first gigabyte costs twice its third.
    warm = 3.0

    def __init__(self):
        super().__init__(RETENTION)


def cpu(broker):
    fields = Path(f"/proc/{broker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(broker, field):
    text = Path(f"/proc/{broker.process.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", text).group(1)) / 1000


def evict(broker):
    """Takes what the broker has on the disk out of the page cache."""
    for path in Path(broker.folder.name).glob("*/*.log"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Bench:
    def __init__(self, load, options):
        self.load_binary, self.options, self.results = load, options, {}

    def load(self, *words):
        done = subprocess.run([self.load_binary, *map(str, words)], stdout=subprocess.PIPE, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"the load failed: {words}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def note(self, broker, figure, value):
        self.results.setdefault(figure, {}).setdefault(broker if isinstance(broker, str) else broker.name, []).append(value)

    def wanted(self, word):
        return not self.options.only or self.options.only in word

    def repeats(self, full=5):
        return 2 if self.options.quick else full

    def topic(self, broker, name, *settings):
        subprocess.run([self.load_binary, "topic", broker.address, name, *settings], check=True)
        time.sleep(0.5)  # Kafka answers before it serves

    def in_turn(self, what, brokers, measure, repeats, first=0):
        for repeat in range(first, repeats):
            for broker in brokers:
                measure(broker, repeat)
        said = {figure: {name: [float(f"{value:.3g}") for value in values] for name, values in by.items()} for figure, by in self.results.items() if figure.startswith(what)}
        say(f"{what}: {said}")

    def produce(self, brokers, what, records, megabytes, *more, bare=False):
        if not self.wanted(what):
            return
        topic = what.replace(" ", "-").replace(",", "")

        def measure(broker, _):
            if broker is BARE:
                return self.note(broker, f"{what}: CPU s/GB", self.load("bare-produce", records, megabytes)["cpu_per_gb"])
            before = cpu(broker)
            done = self.load("produce", broker.address, topic, records, megabytes, *more)
            self.note(broker, f"{what}: CPU s/GB", (cpu(broker) - before) / (done["bytes"] / 1e9))
            self.note(broker, f"{what}: MB/s", done["bytes"] / 1e6 / done["seconds"])

        for broker in brokers:
            self.topic(broker, topic, *REUSED)
            self.load("produce", broker.address, topic, records, int(megabytes * broker.warm), *more)
        self.in_turn(what, [*brokers, BARE] if bare else brokers, measure, self.repeats())

    def fetch(self, brokers):
        if not self.wanted("fetch"):
            return

        def measure(broker, _):
            if broker is BARE:
                return self.note(broker, "fetch, cached: CPU s/GB", self.load("bare-fetch", 1000)["cpu_per_gb"])
            before = cpu(broker)
            done = self.load("fetch", broker.address, "fetched", 1000)
            self.note(broker, "fetch, cached: CPU s/GB", (cpu(broker) - before) / (done["bytes"] / 1e9))
            self.note(broker, "fetch, cached: MB/s", done["bytes"] / 1e6 / done["seconds"])

        for broker in brokers:
            self.topic(broker, "fetched")
            self.load("produce", broker.address, "fetched", 980, 512)
            self.load("fetch", broker.address, "fetched", int(1000 * broker.warm))
        self.in_turn("fetch", [*brokers, BARE], measure, self.repeats())

    def synced(self):
        """Sixteen producers under either durability profile."""
        if not self.wanted("fsync"):
            return

        with running([Dlog, Fsync]) as brokers:
            for size, (records, megabytes) in SYNCED.items():
                topic, more = f"synced-{records}", ["--producers", "16", "--partitions", "16"]

                def measure(broker, _):
                    done = self.load("produce", broker.address, topic, records, megabytes, *more)
                    self.note(broker, f"16 producers of {size} batches: MB/s", done["bytes"] / 1e6 / done["seconds"])

                for broker in brokers:
                    self.topic(broker, topic, *REUSED, "--partitions", "16")
                    self.load("produce", broker.address, topic, records, megabytes, *more)
                self.in_turn(f"16 producers of {size}", brokers, measure, self.repeats())

    def big(self):
        """A log of 10 GiB: a record by its offset or its time against reading all before it; and whether one who reads all of it from the disk
        keeps others waiting."""
        if not self.wanted("10 GiB"):
            return
        with running([Dlog]) as (broker,):
            self.topic(broker, "big", "message.timestamp.type=LogAppendTime", "segment.bytes=1073741824")
            self.topic(broker, "small")
            self.load("produce", broker.address, "small", 1, 1)
            self.load("produce", broker.address, "big", 15, BIG_BYTES // 1_000_000)
            say("10 GiB are written")
            for _ in range(self.repeats(2)):
                # On the average half of a log lies before a record.
                scan = self.load("fetch", broker.address, "big", BIG_BYTES // 1_000_000)["seconds"] / 2
                self.note(broker, "10 GiB log, half of it scanned: s", scan)
                for what, more in (("offset", []), ("timestamp", ["--by-time"])):
                    found = self.load("random", broker.address, "big", 2000, *more)["p50_ms"] / 1000
                    self.note(broker, f"10 GiB log, a record by {what}: ms", found * 1000)
                    self.note(broker, f"10 GiB log, a record by {what}: times faster than a scan", scan / found)
            beside = lambda: self.load("fetch-latency", broker.address, "small", 5)["p99_ms"]
            for _ in range(self.repeats(3)):
                self.note(broker, "fetch, cached, alone: p99 ms", beside())
                for what, is_cold in (("cached", False), ("cold", True)):
                    if is_cold:
                        evict(broker)
                    # It takes a core of two, and what that costs others is not the broker's: so it gives way.
                    reader = subprocess.Popen(["nice", "-n", "19", self.load_binary, "fetch", broker.address, "big", str(BIG_BYTES // 1_000_000)], stdout=subprocess.PIPE)
                    time.sleep(0.2)
                    self.note(broker, f"fetch, cached, while 10 GiB are read {what}: p99 ms", beside())
                    reader.kill()
                    reader.communicate()
            say({figure: by for figure, by in self.results.items() if "10 GiB" in figure or "alone" in figure})

    def latency(self, brokers):
        if not self.wanted("latency"):
            return

        def measure(broker, _):
            for name, value in self.load("latency", broker.address, "latency", 5000, 5).items():
                self.note(broker, f"end to end latency at 5,000/s: {name.removesuffix('_ms')} ms", value)

        for broker in brokers:
            self.topic(broker, "latency")
            self.load("latency", broker.address, "latency", 5000, int(6 * broker.warm))
        self.in_turn("end to end", brokers, measure, self.repeats())

    def transactions(self, brokers):
        """What transactions cost, and how many small ones there are in a second."""
        if not self.wanted("transactions"):
            return

        def throughput(broker, _):
            rates = {}
            for name, more in (("plain", []), ("committed every 100 ms", ["--every-ms", "100"])):
                done = self.load("produce-in-transactions", broker.address, "transactions", 15, 100, *more)
                rates[name] = done["bytes"] / 1e6 / done["seconds"]
                self.note(broker, f"transactions, 16 KB batches {name}: MB/s", rates[name])
            self.note(broker, "transactions, over plain throughput", rates["committed every 100 ms"] / rates["plain"])

        def small(broker, _):
            self.note(broker, "transactions of five records: /s", self.load("transactions", broker.address, "small-transactions", 5, 3)["per_second"])

        for broker in brokers:
            for topic in ("transactions", "small-transactions"):
                self.topic(broker, topic, *REUSED)
            self.load("produce-in-transactions", broker.address, "transactions", 15, int(100 * broker.warm), "--every-ms", "100")
            self.load("transactions", broker.address, "small-transactions", 5, 3)
        self.in_turn("transactions, ", brokers, throughput, self.repeats())
        self.in_turn("transactions of", brokers, small, self.repeats())

    def many(self, brokers):
        if self.wanted("partitions"):
            def partitions(broker, at):
                self.note(broker, "1,000 partitions created and written: s", self.load("partitions", broker.address, f"many-{at}", 1000)["seconds"])

            self.in_turn("1,000", brokers, partitions, self.repeats(3))
        if self.wanted("members"):
            for members in (100, 500):
                def group(broker, at):
                    self.note(broker, f"{members} members stable: s", self.load("group", broker.address, f"group-{members}-{at}", members)["seconds"])

                self.in_turn(f"{members} members", brokers, group, self.repeats(3))

    def idle(self, broker):
        if not self.wanted("idle"):
            return
        before = memory(broker, "VmRSS")
        holder = subprocess.Popen([self.load_binary, "idle", broker.address, "10000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        opened = json.loads(holder.stdout.readline())
        time.sleep(1)
        self.note(broker, "10,000 idle connections: MB", memory(broker, "VmRSS"))
        self.note(broker, "10,000 idle connections: KB each", (memory(broker, "VmRSS") - before) * 1000 / opened["connections"])
        holder.stdin.close()
        holder.wait()
        say(f"{broker.name}: idle connections measured")

    def java(self, brokers):
        """Java's own performance tools, as an independent check."""
        if not self.wanted("java"):
            return
        classes = f"{kafka_peer.JARS}/*"
        run = lambda *words: subprocess.run(["java", "-Xmx512M", "-cp", classes, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
        records = 300_000

        def measure(broker, repeat):
            before = cpu(broker)
            text = run("org.apache.kafka.tools.ProducerPerformance", "--topic", "java", "--num-records", str(records), "--record-size", "1024", "--throughput", "-1",
                       "--producer-props", f"bootstrap.servers={broker.address}", "acks=all")
            after = cpu(broker)
            consumed = run("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", broker.address, "--topic", "java", "--num-records", str(records))
            if repeat < 0:
                return
            self.note(broker, "Java's ProducerPerformance: CPU s/GB", (after - before) / (records * 1024 / 1e9))
            self.note(broker, "Java's ProducerPerformance: MB/s", float(re.findall(r"\(([\d.]+) MB/sec\)", text)[-1]))
            self.note(broker, "Java's ConsumerPerformance: CPU s/GB", (cpu(broker) - after) / (records * 1024 / 1e9))
            self.note(broker, "Java's ConsumerPerformance: MB/s", float(consumed.strip().splitlines()[-1].split(",")[3]))

        for broker in brokers:
            self.topic(broker, "java")
        # The one before the first warms.
        self.in_turn("Java's", brokers, measure, self.repeats(2), first=-1)

    def start(self, make, times):
        for _ in range(times):
            broker = make()
            self.note(broker, "ready: s", broker.ready_seconds)
            time.sleep(1)
            self.note(broker, "idle memory: MB", memory(broker, "VmRSS"))
            broker.remove()
        say(f"{make.name}: started {times} times")

    def image(self):
        """The image that `make docker` has built; nothing where there is no Docker or no image."""
        try:
            size = subprocess.run(["docker", "image", "inspect", "-f", "{{.Size}}", "dlog"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        except FileNotFoundError:
            size = ""
        if size.strip():
            self.note(Dlog, "image: MB", int(size) / 1e6)
        else:
            say("image: not measured, since `make docker` has built none")

    def brokers(self, makes):
        self.image()
        touch_memory()
        for make in makes:
            self.start(make, self.repeats(2 if make is Kafka else 5))
        with running(makes) as brokers:
            self.produce(brokers, "produce, 1 MB batches", 980, 1000, bare=True)
            self.produce(brokers, "produce, 16 KB batches", 15, 250, bare=True)
            self.produce(brokers, "produce, lz4 of 1 MB", 980, 1000, "--lz4")
            self.fetch(brokers)
            self.latency(brokers)
            self.transactions(brokers)
            self.java(brokers)
            for broker in brokers:
                self.note(broker, "memory at its highest: MB", memory(broker, "VmHWM"))
        with running(makes) as brokers:
            self.many(brokers)
            for broker in brokers:
                self.idle(broker)
        if Dlog in makes:
            self.synced()
            self.big()


@contextlib.contextmanager
def running(makes):
    with contextlib.ExitStack() as stack:
        brokers = []
        for make in makes:
            brokers.append(make())
            stack.callback(brokers[-1].remove)
        yield brokers


# What we hold ourselves to: our best against Kafka's best, against the bare loop's, against another figure or our own, or against a number.
EXPECTED = {
    "produce, 1 MB batches: CPU s/GB": [("Kafka", 0.5), ("bare", 1.5)], "produce, 16 KB batches: CPU s/GB": [("Kafka", 0.3), ("bare", 2.0)],
    "produce, lz4 of 1 MB: CPU s/GB": [("Kafka", 0.35)], "fetch, cached: CPU s/GB": [("Kafka", 1.0), ("bare", 1.3)],
    "end to end latency at 5,000/s: p50 ms": [("Kafka", 0.6)], "end to end latency at 5,000/s: p99 ms": [("Kafka", 1.2)],
    "transactions, over plain throughput": [("Kafka at least", 1.0)], "transactions of five records: /s": [("Kafka at least", 10.0)],
    "idle memory: MB": [("at most", 20)], "ready: s": [("at most", 0.02)], "image: MB": [("at most", 25)], "1,000 partitions created and written: s": [("at most", 0.5)],
    "100 members stable: s": [("at most", 1.0)], **{f"16 producers of {size} batches: MB/s": [("fsync at least", 0.5)] for size in SYNCED},
    "10 GiB log, a record by offset: times faster than a scan": [("at least", 100)],
    "10 GiB log, a record by timestamp: times faster than a scan": [("at least", 100)],
    "fetch, cached, while 10 GiB are read cold: p99 ms": [("of it alone", 3.0)],
}
NAMES = {"ours": "dlog", "Kafka": "Apache Kafka", "bare": BARE, "fsync": "dlog, fsync"}


def best(figure, values):
    return max(values) if any(word in figure for word in ("MB/s", "faster", "/s", "over plain")) and "latency" not in figure and "s/GB" not in figure else min(values)


def verdict(results, figure, kind, limit):
    """Whether a figure is what it should be, in words; nothing where it was not measured."""
    of = lambda name, figure=figure: best(figure, results[figure][NAMES[name]]) if results.get(figure, {}).get(NAMES[name]) else None
    ours = of("ours")
    if kind in ("Kafka", "bare"):
        text, value, is_enough = f"of {NAMES[kind]}'s at most", ours / of(kind) if ours and of(kind) else None, lambda v: v <= limit
    elif kind == "Kafka at least":
        text, value, is_enough = f"of {NAMES['Kafka']}'s at least", ours / of("Kafka") if ours and of("Kafka") else None, lambda v: v >= limit
    elif kind == "fsync at least":
        text, value, is_enough = "with fsync at least", of("fsync") / ours if ours and of("fsync") else None, lambda v: v >= limit
    elif kind == "of it alone":
        alone = "fetch, cached, alone: p99 ms"
        # The medians: it is about what happens most of the time.
        median = lambda figure: statistics.median(results[figure][NAMES["ours"]]) if results.get(figure) else None
        text, value, is_enough = "of it alone at most", median(figure) / median(alone) if median(alone) else None, lambda v: v <= limit
    else:
        text, value, is_enough = kind, ours, (lambda v: v >= limit) if kind == "at least" else (lambda v: v <= limit)
    return "" if value is None else f"{text} {limit:g}: {'yes' if is_enough(value) else 'NO'} ({rounded(value)})"


def rounded(value):
    """Three significant digits, without an exponent: 0.00727, 15.4, 1,540."""
    digits = float(f"{value:.3g}")
    return f"{digits:,.0f}" if abs(digits) >= 100 else f"{digits:.10f}".rstrip("0").rstrip(".")


def table(results):
    rows = [("", "dlog best", "median", "Kafka best", "median", "bare loop", "with fsync", "expected")]
    for figure, by in results.items():
        cell = lambda name, of: rounded(of(by[name])) if by.get(name) else ""
        pick = lambda values: best(figure, values)
        verdicts = [verdict(results, figure, kind, limit) for kind, limit in EXPECTED.get(figure, [])]
        if not verdicts and by.get("dlog") and by.get("Apache Kafka"):
            verdicts = [f"{rounded(pick(by['dlog']) / pick(by['Apache Kafka']))} of Apache Kafka's"]
        rows.append((figure, cell("dlog", pick), cell("dlog", statistics.median), cell("Apache Kafka", pick), cell("Apache Kafka", statistics.median),
                     cell(BARE, pick), cell("dlog, fsync", pick), "; ".join(filter(None, verdicts))))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)] + [0]
    return "\n".join("  ".join(f"{text:<{width}}" if at in (0, 7) else f"{text:>{width}}" for at, (text, width) in enumerate(zip(row, widths))) for row in rows)


COLOURS = {"dlog": "#2a7f62", "dlog, fsync": "#7fb8a4", "Apache Kafka": "#b0b0b0", BARE: "#d9c27a"}


def plot(results):
    """Bars: each figure's best of each, as parts of the largest."""
    rows = [(figure, [(name, best(figure, by[name])) for name in COLOURS if by.get(name)]) for figure, by in results.items()]
    height, y, parts = 30 + sum(20 + 16 * len(bars) for _, bars in rows), 30, []
    for figure, bars in rows:
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{figure}</text>')
        largest = max(value for _, value in bars) or 1
        for name, value in bars:
            y += 16
            parts.append(f'<rect x="120" y="{y - 10}" width="{max(1, value / largest * 560):.1f}" height="12" fill="{COLOURS[name]}"/>'
                         f'<text x="10" y="{y}">{name}</text><text x="690" y="{y}">{rounded(value)}</text>')
        y += 20
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="11">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two repeats of everything")
    parser.add_argument("--only", help="only figures whose name contains this")
    parser.add_argument("--brokers", default="dlog,kafka")
    options = parser.parse_args()
    built = subprocess.run(["cargo", "bench", "--no-run", "--bench", "load"], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True).stderr
    load = ROOT / re.search(r"Executable .*\((.*load-[0-9a-f]+)\)", built).group(1)
    bench = Bench(str(load), options)
    touch_memory()
    kafka_peer.install()
    bench.brokers([make for make, name in ((Dlog, "dlog"), (Kafka, "kafka")) if name in options.brokers.split(",")])
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "bench.json").write_text(json.dumps(bench.results, indent=1))
    (OUT / "bench.svg").write_text(plot(bench.results))
    print(table(bench.results))
    print(f"\nbest and median of {bench.repeats()} (2 or 3 where it takes long); {OUT}/bench.json, {OUT}/bench.svg")


if __name__ == "__main__":
    main()
