"""Kafka's own command-line tools against our broker and against Apache Kafka: each tool's output is compared line by line.

A line that differs must have its reason in docs/kafka-tools.md; a reason that no line needs any more fails too.
"""
import concurrent.futures, difflib, json, re, subprocess, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
JARS = HERE.parent / "java" / "target" / "tools"
REASONS = HERE.parent.parent / "docs" / "kafka-tools.md"
PATIENCE = 120

TOOLS = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
    "verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
    "features": "org.apache.kafka.tools.FeatureCommand",
    "metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
}

LINES = "".join(f"key{i}:value {i}\n" for i in range(20))
DELETE = {"version": 1, "partitions": [{"topic": "t", "partition": 0, "offset": 1}]}

# Name, tool, arguments, input. FILE:{...} becomes a file with that content.
CASES = [
    ("api versions", "broker-api-versions", [], None),
    ("create", "topics", ["--create", "--topic", "t", "--partitions", "3", "--replication-factor", "1", "--config", "retention.ms=100000000"], None),
    ("create again", "topics", ["--create", "--topic", "t"], None),
    ("create if not exists", "topics", ["--create", "--topic", "t", "--if-not-exists"], None),
    ("create with a bad name", "topics", ["--create", "--topic", "a b"], None),
    ("create with a bad config", "topics", ["--create", "--topic", "u", "--config", "retention.ms=x"], None),
    ("create with an unknown config", "topics", ["--create", "--topic", "u", "--config", "nonsense=1"], None),
    ("create with too many replicas", "topics", ["--create", "--topic", "u", "--replication-factor", "3"], None),
    ("list", "topics", ["--list"], None),
    ("describe", "topics", ["--describe", "--topic", "t"], None),
    ("describe a missing one", "topics", ["--describe", "--topic", "missing"], None),
    ("grow", "topics", ["--alter", "--topic", "t", "--partitions", "4"], None),
    ("shrink", "topics", ["--alter", "--topic", "t", "--partitions", "2"], None),
    ("describe overrides", "topics", ["--describe", "--topics-with-overrides"], None),
    ("topic's configs", "configs", ["--describe", "--entity-type", "topics", "--entity-name", "t"], None),
    ("all of a topic's configs", "configs", ["--describe", "--all", "--entity-type", "topics", "--entity-name", "t"], None),
    ("alter a topic", "configs", ["--alter", "--entity-type", "topics", "--entity-name", "t", "--add-config", "max.message.bytes=2000000,cleanup.policy=[compact,delete]"], None),
    ("the altered topic", "configs", ["--describe", "--entity-type", "topics", "--entity-name", "t"], None),
    ("alter back", "configs", ["--alter", "--entity-type", "topics", "--entity-name", "t", "--delete-config", "cleanup.policy,max.message.bytes"], None),
    ("alter with a bad value", "configs", ["--alter", "--entity-type", "topics", "--entity-name", "t", "--add-config", "retention.ms=-7"], None),
    ("alter an unknown config", "configs", ["--alter", "--entity-type", "topics", "--entity-name", "t", "--add-config", "nonsense=1"], None),
    ("alter all brokers", "configs", ["--alter", "--entity-type", "brokers", "--entity-default", "--add-config", "log.retention.bytes=1000000000"], None),
    ("all brokers' configs", "configs", ["--describe", "--entity-type", "brokers", "--entity-default"], None),
    ("alter a broker", "configs", ["--alter", "--entity-type", "brokers", "--entity-name", "1", "--add-config", "message.max.bytes=1100000"], None),
    ("the broker's configs", "configs", ["--describe", "--entity-type", "brokers", "--entity-name", "1"], None),
    ("alter what cannot be", "configs", ["--alter", "--entity-type", "brokers", "--entity-name", "1", "--add-config", "num.partitions=7"], None),
    ("produce", "console-producer", ["--topic", "t", "--property", "parse.key=true", "--property", "key.separator=:"], LINES),
    ("consume", "console-consumer", ["--topic", "t", "--from-beginning", "--max-messages", "20", "--group", "g", "--property", "print.key=true", "--property", "print.offset=true",
                                     "--property", "print.partition=true"], None),
    ("consume from an offset", "console-consumer", ["--topic", "t", "--partition", "0", "--offset", "1", "--max-messages", "2"], None),
    ("groups", "consumer-groups", ["--list"], None),
    ("groups with states", "consumer-groups", ["--list", "--state"], None),
    ("describe a group", "consumer-groups", ["--describe", "--group", "g"], None),
    ("a group's state", "consumer-groups", ["--describe", "--group", "g", "--state"], None),
    ("a group's members", "consumer-groups", ["--describe", "--group", "g", "--members"], None),
    ("describe a missing group", "consumer-groups", ["--describe", "--group", "nobody"], None),
    ("reset, dry", "consumer-groups", ["--reset-offsets", "--group", "g", "--topic", "t", "--to-earliest", "--dry-run"], None),
    ("reset to earliest", "consumer-groups", ["--reset-offsets", "--group", "g", "--topic", "t", "--to-earliest", "--execute"], None),
    ("reset by a shift", "consumer-groups", ["--reset-offsets", "--group", "g", "--topic", "t", "--shift-by", "2", "--execute"], None),
    ("reset to a time", "consumer-groups", ["--reset-offsets", "--group", "g", "--topic", "t:0", "--to-datetime", "2020-01-01T00:00:00.000", "--execute"], None),
    ("reset to the current", "consumer-groups", ["--reset-offsets", "--group", "g", "--all-topics", "--to-current", "--export", "--dry-run"], None),
    ("delete offsets", "consumer-groups", ["--delete-offsets", "--group", "g", "--topic", "t:1"], None),
    ("the group after", "consumer-groups", ["--describe", "--group", "g", "--offsets"], None),
    ("delete a group", "consumer-groups", ["--delete", "--group", "g"], None),
    ("delete a missing group", "consumer-groups", ["--delete", "--group", "g"], None),
    ("latest offsets", "get-offsets", ["--topic", "t"], None),
    ("earliest offsets", "get-offsets", ["--topic", "t", "--time", "-2"], None),
    # Records of one run may share a millisecond, and then the first of them is the answer.
    ("create a topic for two times", "topics", ["--create", "--topic", "times", "--partitions", "1", "--replication-factor", "1"], None),
    ("produce early", "console-producer", ["--topic", "times"], "early\n"),
    ("produce late", "console-producer", ["--topic", "times"], "late\n"),
    ("offsets of the largest times", "get-offsets", ["--topic-partitions", "times:0", "--time", "-3"], None),
    ("offsets of a missing topic", "get-offsets", ["--topic", "missing"], None),
    ("delete records", "delete-records", ["--offset-json-file", "FILE:" + json.dumps(DELETE)], None),
    ("earliest offsets after", "get-offsets", ["--topic", "t", "--time", "earliest"], None),
    ("log directories", "log-dirs", ["--describe", "--topic-list", "t"], None),
    ("verifiable producer", "verifiable-producer", ["--topic", "v", "--max-messages", "50"], None),
    ("verifiable consumer", "verifiable-consumer", ["--topic", "v", "--group-id", "vg", "--max-messages", "50", "--reset-policy", "earliest"], None),
    ("elect leaders", "leader-election", ["--election-type", "preferred", "--topic", "t", "--partition", "0"], None),
    ("elect all leaders", "leader-election", ["--election-type", "preferred", "--all-topic-partitions"], None),
    ("reassignments", "reassign-partitions", ["--list"], None),
    ("producers", "transactions", ["describe-producers", "--topic", "v", "--partition", "0"], None),
    ("leave a transaction open", "driver", ["hang", "topic=v", "id=hanging"], None),
    ("list transactions", "transactions", ["list"], None),
    ("describe a transaction", "transactions", ["describe", "--transactional-id", "hanging"], None),
    ("describe a missing transaction", "transactions", ["describe", "--transactional-id", "missing"], None),
    ("producers with a transaction", "transactions", ["describe-producers", "--topic", "v", "--partition", "0"], None),
    ("find what hangs", "transactions", ["find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0"], None),
    ("abort a transaction", "transactions", ["abort", "--topic", "v", "--partition", "0", "--start-offset", "50"], None),
    ("producers after", "transactions", ["describe-producers", "--topic", "v", "--partition", "0"], None),
    ("the state of the quorum", "metadata-quorum", ["describe", "--status"], None),
    ("the replicas of the quorum", "metadata-quorum", ["describe", "--replication"], None),
    ("features", "features", ["describe"], None),
    ("upgrade a feature too far", "features", ["upgrade", "--feature", "transaction.version=9"], None),
    ("downgrade a feature", "features", ["downgrade", "--feature", "transaction.version=1"], None),
    ("upgrade a feature", "features", ["upgrade", "--feature", "transaction.version=2"], None),
    ("delete", "topics", ["--delete", "--topic", "t"], None),
    ("delete a missing one", "topics", ["--delete", "--topic", "missing"], None),
]

# What differs from run to run.
MASKS = [
    (r"127\.0\.0\.1:\d+", "ADDRESS"), (r"localhost:\d+", "ADDRESS"),
    (r"(TopicId: )\S+", r"\1ID"), (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]?\d*", "TIME"), (r"\b1[67]\d{8,11}\b|\b17\d{11}\b", "MILLISECONDS"),
    (r"(Ongoing\s+\d+\s+MILLISECONDS\s+)\d+", r"\1DURATION"), (r"(FinalizedVersionLevel: \S+\s+Epoch: )\d+", r"\1N"),
    (r"/\S*(kafka-peer|dlog-compat)-[^\"/]+(/data)?", "DIRECTORY"), (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\"(timestamp|elapsed|avg_throughput)\":[\d.]+", r'"\1":N'), (r"\"target_throughput\":-?\d+", '"target_throughput":N'), (r"[ \t]+", " "),
    (r"^(ClusterId|LeaderEpoch|HighWatermark): \S+", r"\1: N"), (r"^(\d+ \S+ )\d+( \d+ MILLISECONDS)", r"\1N\2"),
]


def masked(line):
    for pattern, text in MASKS:
        line = re.sub(pattern, text, line)
    return line.strip()


def run_tool(address, tool, words, text):
    """The exit code and the lines of output and of what is said on stderr, without the traces of Java."""
    with tempfile.TemporaryDirectory() as folder:
        words = list(words)
        for at, word in enumerate(words):
            if word.startswith("FILE:"):
                path = Path(folder) / "file.json"
                path.write_text(word[len("FILE:"):])
                words[at] = str(path)
        driver = [str(HERE.parent / "java" / "driver"), *words, f"bootstrap={address}"]
        command = driver if tool == "driver" else ["java", "-Xmx256M", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{JARS}/*", TOOLS[tool], "--bootstrap-server", address, *words]
        try:
            done = subprocess.run(command, input=text or "", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return ["exit code: none, it did not end"]
    noise = re.compile(r"^\s*at |^SLF4J|^\s*\.\.\. \d+ more|^\(org\.|^WARN|^Option --property|^$|^WARNING:|^Caused by|^\[[\d.]+s\]\[warning\]")
    lines = [masked(line) for line in (done.stdout + "\n" + done.stderr).splitlines() if not noise.search(line)]
    return sorted(line for line in lines if line) + [f"exit code: {done.returncode}"]


def alternatives(pattern):
    """`(A|B)x` as `Ax` and `Bx`, so that an alternative that no line needs is seen."""
    group = re.search(r"(?<!\\)\(([^()]*\|[^()]*)\)", pattern)
    return [pattern[:group.start()] + word + pattern[group.end():] for word in group[1].split("|")] if group else [pattern]


def reasons():
    """The rows of the table in the docs, one for each alternative: case, pattern of the line, reason."""
    rows = []
    for line in REASONS.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[1].startswith("`"):
            rows += [(cells[0], re.compile(pattern), cells[2]) for pattern in alternatives(cells[1].strip("`").replace("\\|", "|"))]
    return rows


def compare(ours, theirs, say, only=None):
    """Runs all cases on both addresses; returns how many failed."""
    table, used, failures = reasons(), set(), 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, tool, words, text in CASES:
            if only and only not in name:
                continue
            begin = time.time()
            mine, reference = pool.map(lambda address: run_tool(address, tool, words, text), [ours, theirs])
            differing = [l for l in difflib.ndiff(reference, mine) if l[0] in "+-"]
            explained = [at for at, (case, pattern, _) in enumerate(table) if case in (name, "*")]
            bad = []
            for line in differing:
                hits = [at for at in explained if table[at][1].search(line)]
                used.update(hits)
                if not hits:
                    bad.append(line)
            same = f"{len(mine)} lines, {len(differing)} differ with a reason"
            say("FAILED" if bad else "ok", f"{tool}: {name}", time.time() - begin, "; ".join(bad) if bad else same)
            failures += bool(bad)
    stale = [table[at] for at in range(len(table)) if at not in used]
    if stale and not only:
        say("FAILED", "reasons that no line needs", 0, "; ".join(f"{case}: {pattern.pattern}" for case, pattern, _ in stale))
        failures += 1
    return failures
