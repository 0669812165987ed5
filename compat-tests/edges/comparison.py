"""Edge cases to our broker and to Apache Kafka: every API and version with illegal, empty, null, repeated and extreme fields, answers compared field by field.

A difference needs a reason in reasons.py; one without a reason fails, and so does a reason that nothing needs any more. `--case PATTERN` runs only the
cases whose name (`Produce 7 codec 1 over none, to t`) fits the regular expression, and then an unused reason is no failure.
"""
import json, re, socket, struct, sys, time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cases import BASES, Id, NOT_COMPARED, Producer, THREE, Text, batch, generic, produced, record, settings
from reasons import KAFKA_FAILS, REASONS
from wire import apis, request_frame, response

PATIENCE = 5
REPORT = Path(__file__).resolve().parents[2] / "target" / "compat" / "edges.txt"
UNKNOWN_SERVER_ERROR = -1
CLOSED, SILENT = "closed the connection", "no answer"


class Broker:
    """One connection to a broker, with what it told about itself."""

    def __init__(self, address, apis):
        host, port = address.split(":")
        self.address, self.apis, self.socket, self.ids, self.producer = (host, int(port)), apis, None, {}, -1

    def frame(self, data):
        """The answer's frame, or what happened in its place."""
        try:
            if self.socket is None:
                self.socket = socket.create_connection(self.address, timeout=10)
            self.socket.settimeout(PATIENCE)
            self.socket.sendall(data)
            head = self.read(4)
            return self.read(struct.unpack(">i", head)[0])
        except (TimeoutError, socket.timeout):
            self.close()
            return SILENT
        except OSError:
            self.close()
            return CLOSED

    def read(self, count):
        parts = b""
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise ConnectionError
            parts += part
        return parts

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    def ask(self, api, version, request, number=0):
        api = self.apis[api] if isinstance(api, str) else api
        request = self.filled(request, number)
        answer = self.frame(request_frame(api, version, request, client=request.get("_client", "edges")))
        if isinstance(answer, str):
            return answer
        try:
            return response(api, version, answer)
        except ValueError as error:
            return f"an answer that cannot be read: {error}"

    def filled(self, value, number):
        if isinstance(value, dict):
            return {key: self.filled(item, number) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item, number) for item in value]
        if isinstance(value, Id):
            return self.ids.get(value.topic, bytes(16))
        if isinstance(value, Producer):
            return self.producer
        return f"{value.text}-{number}" if isinstance(value, Text) else value

    def prepare(self):
        """Topics, records and a group that the cases speak of."""
        compacted, append = [dict(name="cleanup.policy", value="compact")], [dict(name="message.timestamp.type", value="LogAppendTime")]
        wanted = [("t", 2, []), ("written", 1, []), ("empty", 1, []), ("cut", 1, []), ("compacted", 1, compacted), ("appended", 1, append), ("small", 1, [dict(name="max.message.bytes", value="80")]),
                  ("recent", 1, [dict(name="message.timestamp.before.max.ms", value="1000")]), ("zipped", 1, [dict(name="compression.type", value="zstd")])]
        # The records are of 2023: nothing may delete them for that.
        kept = [dict(name="retention.ms", value="-1")]
        topics = [dict(name=name, num_partitions=count, replication_factor=1, assignments=[], configs=kept + configs) for name, count, configs in wanted]
        made = self.ask("CreateTopics", 7, dict(topics=topics, timeout_ms=20000))
        assert isinstance(made, dict) and all(topic["error_code"] == 0 for topic in made["topics"]), made
        self.ids = {topic["name"]: bytes.fromhex(topic["topic_id"].replace("-", "")) for topic in made["topics"]}
        deadline = time.time() + 60
        for kind in (0, 1):
            while self.ask("FindCoordinator", 4, dict(key_type=kind, coordinator_keys=["g"]))["coordinators"][0]["error_code"] != 0:
                assert time.time() < deadline
                time.sleep(0.2)
        while (given := self.ask("InitProducerId", 4, dict(transactional_id="first", transaction_timeout_ms=10000)))["error_code"] != 0:
            assert time.time() < deadline
            time.sleep(0.2)
        self.producer = given["producer_id"]
        for records in (batch(THREE), batch([record(0, time_delta=10), record(1, time_delta=20)], max_time=1_700_000_000_020)):
            for topic in ("t", "cut"):
                done = self.ask("Produce", 7, dict(acks=-1, timeout_ms=9000, topic_data=[dict(name=topic, partition_data=[dict(index=0, records=records)])]))
                assert done["responses"][0]["partition_responses"][0]["error_code"] == 0, done
        while (done := self.ask("OffsetCommit", 7, BASES["OffsetCommit"]))["topics"][0]["partitions"][0]["error_code"] != 0:
            assert time.time() < deadline, done
            time.sleep(0.2)
        cut = self.ask("DeleteRecords", 1, dict(topics=[dict(name="cut", partitions=[dict(partition_index=0, offset=1)])], timeout_ms=9000))
        assert cut["topics"][0]["partitions"][0]["low_watermark"] == 1, cut


# What is each broker's own, by the name of the field: the kind of value is compared, not the value.
OWN = {"host", "port", "cluster_id", "topic_id", "producer_id", "member_id", "leader", "client_host", "log_dir", "total_bytes", "usable_bytes", "session_id", "documentation", "last_timestamp",
       "transaction_start_time_ms", "base_offset"}
TIMES, SIZES = {"log_append_time_ms"}, {"partition_size"}
SORTED_BY = ("name", "topic", "resource_name", "group_id", "partition_index", "index", "partition", "transactional_id", "api_key", "feature", "key", "topic_id", "resource_type")


def kind(value):
    if value is None or value in ("", 0, -1, "00000000-0000-0000-0000-000000000000"):
        return value
    return "a number" if isinstance(value, int) and not isinstance(value, bool) else "a text"


def normal(value, name=""):
    """A value without what is each broker's own."""
    if isinstance(value, dict):
        return {key: normal(item, key) for key, item in value.items() if key not in ("throttle_time_ms",)}
    if isinstance(value, list):
        items = [normal(item) for item in value]
        if items and isinstance(items[0], dict):
            key = next((key for key in SORTED_BY if key in items[0]), None)
            items.sort(key=lambda item: (str(item.get(key)).rjust(6), json.dumps(item, sort_keys=True, default=str)))
        elif name in ("error_records",) or items and isinstance(items[0], str):
            items.sort()
        return items
    if name in OWN or name.endswith("message"):
        return kind(value)
    if name in TIMES:
        return "a time" if value and value > 0 else value
    if name in SIZES:
        return "a size" if value >= 0 else value
    return value.hex() if isinstance(value, bytes) else value


def differences(ours, theirs, path=""):
    """(path, ours, theirs) of every field that differs; lists of named things are compared by name."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from differences(ours.get(key, "not there"), theirs.get(key, "not there"), f"{path}.{key}" if path else key)
    elif isinstance(ours, list) and isinstance(theirs, list) and all(isinstance(item, dict) and "name" in item for item in ours + theirs):
        yield from differences(*({f"[{item['name']}]": item for item in side} for side in (ours, theirs)), path)
    elif isinstance(ours, list) and isinstance(theirs, list) and all(isinstance(item, dict) for item in ours + theirs) and len(ours) == len(theirs):
        for number, (our, their) in enumerate(zip(ours, theirs)):
            yield from differences(our, their, f"{path}[{number}]")
    elif ours != theirs:
        yield path, ours, theirs


class Reason:
    """Why answers differ: cases and fields by regular expressions."""

    def __init__(self, case, path, why, holds=None):
        self.case, self.path, self.why, self.holds, self.used = re.compile(case), re.compile(path), why, holds, 0

    def explains(self, case, path, ours, theirs):
        fits = self.case.search(case) and self.path.search(path) and (self.holds is None or self.holds(ours, theirs))
        self.used += bool(fits)
        return bool(fits)


def fails(answer):
    """Whether some error code of an answer is UNKNOWN_SERVER_ERROR."""
    if isinstance(answer, dict):
        return any(key == "error_code" and item == UNKNOWN_SERVER_ERROR or fails(item) for key, item in answer.items())
    return isinstance(answer, list) and any(map(fails, answer))


def names_of_settings(broker, kind, name):
    asked = dict(resources=[dict(resource_type=kind, resource_name=name, configuration_keys=None)])
    return sorted(setting["name"] for setting in broker.ask("DescribeConfigs", 4, asked)["results"][0]["configs"])


def compare(our_address, their_address, say, only=None):
    """The number of failures."""
    begin, known = time.time(), apis()
    ours, theirs = Broker(our_address, known), Broker(their_address, known)
    ours.prepare()
    theirs.prepare()
    served = {api["api_key"] for api in ours.ask("ApiVersions", 0, {})["api_keys"]}
    unasked = [api.name for api in known.values() if api.key in served and api.name not in {*BASES, *NOT_COMPARED}]
    assert not unasked, f"served, and without a request in cases.py: {unasked}"
    cases = [*generic(known), *produced(known), *settings(known, names_of_settings(theirs, 2, "t"), names_of_settings(theirs, 4, "1"))]
    reasons = [Reason(*reason) for reason in REASONS]
    failures_of_kafka = [Reason(case, "", why) for case, why in KAFKA_FAILS]
    same, explained, failed, report, per_api = 0, 0, 0, [], {}
    for number, (api, version, what, request) in enumerate(cases):
        case = f"{api.name} {version} {what}"
        if only and not re.search(only, case):
            continue
        answers = [normal(broker.ask(api, version, request, number)) for broker in (ours, theirs)]
        found = list(differences(*answers))
        left = [one for one in found if not any([reason.explains(case, *one) for reason in reasons])]
        if left and fails(answers[1]) and any([reason.explains(case, *left[0]) for reason in failures_of_kafka]):
            left = []
        same, explained, failed = same + (not found), explained + bool(found and not left), failed + bool(left)
        counts = per_api.setdefault(api.name, Counter())
        counts["failed" if left else "explained" if found else "same"] += 1
        report += [f"{case}: {path}: ours {str(our)[:160]!r}, Kafka's {str(their)[:160]!r}" for path, our, their in left]
    unused = [] if only else [reason for reason in reasons + failures_of_kafka if not reason.used]
    report += [f"a reason that nothing needs any more: {reason.case.pattern} {reason.path.pattern}: {reason.why}" for reason in unused]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join(report) + "\n")
    for api, counts in sorted(per_api.items()):
        say("FAILED" if counts["failed"] else "ok", api, 0, f"{counts['same']} the same, {counts['explained']} with a reason, {counts['failed']} without")
    print("\n".join(report[:40]), flush=True)
    total = f"{same + explained + failed} answers: {same} the same, {explained} with a reason, {failed} without; {len(unused)} reasons that nothing needs; all in {REPORT}"
    say("FAILED" if failed or unused else "ok", "edges", time.time() - begin, total)
    return failed + len(unused)
