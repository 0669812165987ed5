"""The requests that are sent to both brokers: valid ones, and what becomes of them when one field holds something that it should not.

A case is (api, version, name, request, client id). Values that differ between the brokers (`Id`, `Producer`) are filled in when it is sent.
"""
import copy, gzip, re, struct
from dataclasses import dataclass

from wire import Raw

NOW = 1_700_000_000_000
FIRST_VERSION_OF_LISTS = 1000


@dataclass(frozen=True)
class Id:
    """A topic's id, which each broker chose itself."""
    topic: str


@dataclass(frozen=True)
class Producer:
    """A producer id that the broker gave out."""


@dataclass(frozen=True)
class Text:
    """A text that holds the number of the case, so that no two cases meet."""
    text: str


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


TABLE = list(table())


def zigzag(number):
    number, out = (number << 1) ^ (number >> 63), b""
    number &= 2**64 - 1
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def sized(data):
    return zigzag(-1) if data is None else zigzag(len(data)) + data


def record(index, key=b"k", value=b"v", time_delta=0, headers=(), attributes=0, offset_delta=None):
    body = bytes([attributes]) + zigzag(time_delta) + zigzag(index if offset_delta is None else offset_delta) + sized(key) + sized(value) + zigzag(len(headers))
    body += b"".join(sized(name) + sized(content) for name, content in headers)
    return zigzag(len(body)) + body


def batch(records=None, body=None, count=None, last=None, attributes=0, base_time=NOW, max_time=None, producer=-1, epoch=-1, sequence=-1,
          base_offset=0, leader_epoch=-1, magic=2, crc=None, length=None):
    records = [record(0)] if records is None else records
    body = b"".join(records) if body is None else body
    count = len(records) if count is None else count
    last = count - 1 if last is None else last
    after = struct.pack(">hiqqqhii", attributes, last, base_time, base_time if max_time is None else max_time, producer, epoch, sequence, count) + body
    crc = crc32c(after) if crc is None else crc
    return struct.pack(">qiibI", base_offset, len(after) + 9 if length is None else length, leader_epoch, magic, crc) + after


def old_message(magic, value=b"v"):
    """A message of format 0 or 1."""
    import zlib
    body = bytes([magic, 0]) + (struct.pack(">q", NOW) if magic else b"") + struct.pack(">i", -1) + struct.pack(">i", len(value)) + value
    return struct.pack(">qiI", 0, len(body) + 4, zlib.crc32(body)) + body


ONE = batch()
TWO = [record(0, None, b"a"), record(1)]
THREE = [record(0, None, b"a"), record(1), record(2, None, b"c")]
MIN64, MAX64, MAX32, MAX16, MAX8 = -2**63, 2**63 - 1, 2**31 - 1, 2**15 - 1, 127
BATCHES = {
    "nothing": b"", "null": None, "ten bytes": b"0123456789", "61 zeros": bytes(61), "cut off": ONE[:-1], "twice": ONE + ONE, "and half another": ONE + ONE[:30],
    "wrong checksum": batch(crc=1), "no records": batch(records=[]), "format 0": old_message(0), "format 1": old_message(1), "format 3": batch(magic=3),
    "format -1": batch(magic=-1), "base offset 5": batch(base_offset=5), "base offset -1": batch(base_offset=-1), "leader epoch 5": batch(leader_epoch=5),
    "count 2 of 1": batch(count=2), "count 0 of 1": batch(count=0, last=0), "count -1": batch(count=-1, last=0), "count 1 of 2": batch(TWO, count=1), "last offset 7": batch(last=7),
    "last offset -1": batch(last=-1), "length 0": batch(length=0), "length -1": batch(length=-1), "length too big": batch(length=1000),
    "control": batch(attributes=32), "transactional without id": batch(attributes=16), "delete horizon": batch(attributes=64), "unknown attribute": batch(attributes=128),
    "append time": batch(attributes=8), "append time without time": batch(attributes=8, base_time=-1), "append time of two": batch(TWO, attributes=8, max_time=NOW + 5),
    "codec 5": batch(attributes=5), "codec 7": batch(attributes=7),
    **{f"codec {codec} over none": batch(attributes=codec) for codec in (1, 2, 3, 4)},
    **{f"codec {codec} over nothing": batch(body=b"", attributes=codec) for codec in (1, 2, 3, 4)},
    "gzip": batch(TWO, body=gzip.compress(b"".join(TWO), mtime=0), attributes=1), "gzip of one too few": batch(TWO, body=gzip.compress(record(0)), attributes=1),
    "gzip of one too many": batch(body=gzip.compress(b"".join(TWO)), attributes=1), "gzip cut off": batch(TWO, body=gzip.compress(b"".join(TWO), mtime=0)[:-9], attributes=1),
    "gzip of garbage": batch(body=gzip.compress(b"garbage"), attributes=1), "gzip, no largest time": batch(TWO, body=gzip.compress(b"".join(TWO)), attributes=1, max_time=-1),
    "gzip with bytes behind": batch(TWO, body=gzip.compress(b"".join(TWO), mtime=0) + b"more", attributes=1),
    "time -1": batch(base_time=-1), "time -5": batch(base_time=-5), "time 0": batch(base_time=0), "time MIN": batch(base_time=MIN64), "time MAX": batch(base_time=MAX64),
    "time in 9999": batch(base_time=253402300799000), "time far back": batch(base_time=-62135596800000), "two times too late": batch([record(0, time_delta=10**14), record(1), record(2, time_delta=10**14)], max_time=NOW + 10**14),
    "largest time -1": batch(max_time=-1), "largest time too small": batch([record(0, time_delta=500)], max_time=NOW), "largest time too big": batch(max_time=NOW + 500),
    "producer without sequence": batch(producer=10**6, epoch=0), "producer without epoch": batch(producer=10**6, sequence=0), "sequence 5 of a new producer": batch(producer=10**6 + 1, epoch=0, sequence=5),
    "sequence 0 of a new producer": batch(producer=10**6 + 2, epoch=0, sequence=0), "sequence without producer": batch(sequence=3), "producer -2": batch(producer=-2), "epoch -2": batch(producer=10**6 + 3, epoch=-2, sequence=0),
    "no keys": batch(THREE), "no key and too late": batch([record(0, None, time_delta=10**14), record(1, b"k", time_delta=10**14)], max_time=NOW + 10**14),
    "key of no bytes": batch([record(0, b"")]), "value null": batch([record(0, b"k", None)]), "offset delta 5": batch([record(0, offset_delta=5)]), "offset delta -1": batch([record(0, offset_delta=-1)]),
    "record attributes": batch([record(0, attributes=255)]), "headers": batch([record(0, headers=[(b"h", b"1"), (b"h", None), (b"", b"")])]), "header without name": batch([record(0, headers=[(None, b"1")])]),
    "header not text": batch([record(0, headers=[(b"\xff", b"1")])]), "key length -2": batch(body=zigzag(7) + b"\0\0\0" + zigzag(-2) + zigzag(0) + zigzag(0) + b"\0"), "record length -1": batch(body=zigzag(-1) + b"abcdef"),
    "record length 0": batch(body=zigzag(0)), "record too long": batch(body=zigzag(100) + b"abcdef"), "bytes behind": batch(body=record(0) + b"more"), "headers -1": batch(body=zigzag(6) + b"\0\0\0" + zigzag(-1) + zigzag(-1) + zigzag(-1)),
    "larger than allowed": batch([record(0, value=bytes(1_100_000))]),
}
BATCH_TOPICS = ["written", "compacted", "appended", "recent", "zipped", "small"]

TOPIC = dict(name="t", topic_id=Id("t"))
CONFIG = dict(name="retention.ms", value="5000")
BASES = {
    "Produce": dict(acks=-1, timeout_ms=2000, topic_data=[dict(name="written", topic_id=Id("written"), partition_data=[dict(index=0, records=ONE)])]),
    "Fetch": dict(max_wait_ms=50, min_bytes=0, max_bytes=1 << 20, session_epoch=-1, topics=[dict(topic="t", topic_id=Id("t"), partitions=[dict(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)])], forgotten_topics_data=[]),
    "ListOffsets": dict(replica_id=-1, timeout_ms=1000, topics=[dict(name="t", partitions=[dict(partition_index=0, timestamp=-1)])]),
    "Metadata": dict(topics=[dict(name="t", topic_id=bytes(16))], allow_auto_topic_creation=False, include_topic_authorized_operations=True, include_cluster_authorized_operations=True),
    "OffsetCommit": dict(group_id="g", generation_id_or_member_epoch=-1, member_id="", topics=[dict(TOPIC, partitions=[dict(partition_index=0, committed_offset=1, committed_metadata="m")])]),
    "OffsetFetch": dict(group_id="g", topics=[dict(name="t", partition_indexes=[0])], groups=[dict(group_id="g", topics=[dict(TOPIC, partition_indexes=[0])])]),
    "FindCoordinator": dict(key="g", key_type=0, coordinator_keys=["g"]),
    "JoinGroup": dict(group_id=Text("join"), session_timeout_ms=6000, rebalance_timeout_ms=1000, member_id="", protocol_type="consumer", protocols=[dict(name="range", metadata=b"m")]),
    "Heartbeat": dict(group_id="g", generation_id=1, member_id="nobody"),
    "LeaveGroup": dict(group_id="g", member_id="nobody", members=[dict(member_id="nobody")]),
    "SyncGroup": dict(group_id="g", generation_id=1, member_id="nobody", assignments=[]),
    "DescribeGroups": dict(groups=["g"], include_authorized_operations=True),
    "ListGroups": dict(states_filter=["Empty"], types_filter=["classic"]),
    "ApiVersions": dict(client_software_name="edges", client_software_version="1.0"),
    "CreateTopics": dict(topics=[dict(name=Text("created"), num_partitions=1, replication_factor=1, assignments=[], configs=[CONFIG])], timeout_ms=5000, validate_only=False),
    "DeleteTopics": dict(topics=[dict(name="none", topic_id=bytes(16))], topic_names=["none"], timeout_ms=5000),
    "DeleteRecords": dict(topics=[dict(name="cut", partitions=[dict(partition_index=0, offset=0)])], timeout_ms=2000),
    "InitProducerId": dict(transactional_id=Text("transaction"), transaction_timeout_ms=10000),
    "OffsetForLeaderEpoch": dict(replica_id=-1, topics=[dict(topic="t", partitions=[dict(partition=0, leader_epoch=0)])]),
    "AddPartitionsToTxn": dict(transactions=[dict(transactional_id="nobody", producer_id=Producer(), producer_epoch=0, topics=[dict(name="t", partitions=[0])])],
                               v3_and_below_transactional_id="nobody", v3_and_below_producer_id=Producer(), v3_and_below_producer_epoch=0, v3_and_below_topics=[dict(name="t", partitions=[0])]),
    "AddOffsetsToTxn": dict(transactional_id="nobody", producer_id=Producer(), producer_epoch=0, group_id="g"),
    "EndTxn": dict(transactional_id="nobody", producer_id=Producer(), producer_epoch=0, committed=True),
    "WriteTxnMarkers": dict(markers=[dict(producer_id=Producer(), producer_epoch=0, transaction_result=False, topics=[dict(name="empty", partition_indexes=[0])], coordinator_epoch=0, transaction_version=0)]),
    "TxnOffsetCommit": dict(transactional_id="nobody", group_id="g", producer_id=Producer(), producer_epoch=0, member_id="", topics=[dict(TOPIC, partitions=[dict(partition_index=0, committed_offset=1, committed_metadata="")])]),
    "DescribeConfigs": dict(resources=[dict(resource_type=2, resource_name="t", configuration_keys=["retention.ms", "cleanup.policy"])], include_synonyms=True, include_documentation=True),
    "AlterConfigs": dict(resources=[dict(resource_type=2, resource_name="empty", configs=[CONFIG])], validate_only=True),
    "IncrementalAlterConfigs": dict(resources=[dict(resource_type=2, resource_name="empty", configs=[dict(CONFIG, config_operation=0)])], validate_only=True),
    "DescribeLogDirs": dict(topics=[dict(topic="t", partitions=[0, 1])]),
    "CreatePartitions": dict(topics=[dict(name="t", count=3, assignments=None)], timeout_ms=5000, validate_only=True),
    "DeleteGroups": dict(groups_names=["nobody"]),
    "ElectLeaders": dict(election_type=0, topic_partitions=[dict(topic="t", partitions=[0])], timeout_ms=2000),
    "ListPartitionReassignments": dict(timeout_ms=2000, topics=[dict(name="t", partition_indexes=[0])]),
    "ListConfigResources": dict(resource_types=[2, 4]),
    "OffsetDelete": dict(group_id="g", topics=[dict(name="t", partitions=[dict(partition_index=1)])]),
    "UpdateFeatures": dict(timeout_ms=2000, feature_updates=[dict(feature="transaction.version", max_version_level=2, upgrade_type=1)], validate_only=True),
    "SaslHandshake": dict(mechanism="PLAIN"),
    "SaslAuthenticate": dict(auth_bytes=b"\0user\0password"),
    "DescribeCluster": dict(include_cluster_authorized_operations=True, endpoint_type=1),
    "DescribeQuorum": dict(topics=[dict(topic_name="__cluster_metadata", partitions=[dict(partition_index=0)])]),
    "DescribeProducers": dict(topics=[dict(name="empty", partition_indexes=[0])]),
    "DescribeTransactions": dict(transactional_ids=["nobody"]),
    "ListTransactions": dict(state_filters=["Ongoing"], producer_id_filters=[5]),
    "DescribeTopicPartitions": dict(topics=[dict(name="t")], response_partition_limit=10),
}
# APIs that are served and not compared, with the reason.
NOT_COMPARED = {"ConsumerGroupHeartbeat": "It only tells a client that such groups are not served."}
# Limits of integers in both directions, and values just outside what has a meaning.
NUMBERS = {"int8": [-128, -2, -1, 0, 1, 3, MAX8], "int16": [-2**15, -2, -1, 0, 1, MAX16], "int32": [-2**31, -2, -1, 0, 1, 2, MAX32], "int64": [MIN64, -6, -5, -4, -3, -2, -1, 0, 1, MAX64]}
TEXTS = ["", "none", "a b/ä", ".", "x" * 250]


def mutations(field, version):
    """Values that a field could hold, each with a name."""
    if field.name == "validate_only" or field.name == "timeout_ms" and field.type == "int32":
        return
    if field.type in NUMBERS:
        for number in NUMBERS[field.type]:
            yield str(number), number
    elif field.type == "bool":
        yield "true", True
        yield "false", False
    elif field.type == "string":
        for text in TEXTS:
            yield repr(text if len(text) < 20 else f"{text[0]} * {len(text)}"), text
        yield "null", None
    elif field.type == "uuid":
        yield "zero", bytes(16)
        yield "unknown", bytes(range(16))
    elif field.type in ("bytes", "records"):
        yield "empty", b""
        yield "null", None
    elif field.element:
        yield "empty", []
        yield "null", None
        # Not in UTF-8, cut off, a length that cannot be.
        yield "a length of 2 billion", Raw(b"\x80\x80\x80\x80\x08" if version >= FIRST_VERSION_OF_LISTS else b"\x7f\xff\xff\xff")


def at(value, path):
    for step in path:
        value = value[step]
    return value


def places(fields, value, version, path=()):
    """Every field of a version that the valid request has or could have, with the way to it."""
    for field in fields:
        if version not in field.versions:
            continue
        yield field, path
        inside = value.get(field.name)
        if field.fields and isinstance(inside, list) and inside:
            yield from places(field.fields, inside[0], version, (*path, field.name, 0))
        elif field.fields and isinstance(inside, dict):
            yield from places(field.fields, inside, version, (*path, field.name))


def mutated(api, version, base):
    """The valid request, and every request that differs from it in one field."""
    yield "valid", base
    for field, path in places(api.request.fields, base, version):
        name = ".".join([str(step) for step in path if step != 0] + [field.name])
        for what, value in mutations(field, version if version < api.request.flexible_from else FIRST_VERSION_OF_LISTS):
            request = copy.deepcopy(base)
            at(request, path)[field.name] = value
            yield f"{name} {what}", request
        items = at(base, path).get(field.name)
        if field.element and items:
            request = copy.deepcopy(base)
            at(request, path)[field.name] = [*items, *copy.deepcopy(items)]
            yield f"{name} repeated", request
            request = copy.deepcopy(base)
            other = copy.deepcopy(items[0])
            if isinstance(other, dict):
                for key in other:
                    other[key] = "none" if isinstance(other[key], str) else 77 if type(other[key]) is int else other[key]
            else:
                other = "none" if isinstance(other, str) else 77
            at(request, path)[field.name] = [*items, other]
            yield f"{name} and another", request
    if version >= api.request.flexible_from:
        yield "an unknown tagged field", dict(base, _tags={1000: b"abc"})


def generic(apis):
    for name, base in BASES.items():
        api = apis[name]
        ends = {api.request.versions[0], api.request.versions[-1], api.request.flexible_from - 1, api.request.flexible_from}
        for version in api.request.versions:
            for what, request in mutated(api, version, base):
                # Between the ends only what concerns the form of the request: numbers and texts mean there what they mean at the ends.
                if version in ends or not re.search(r" (-?\d+|'.*'|true|false)$", what):
                    yield api, version, what, request


def produced(apis):
    """Batches that are not as they should be, to topics with different rules."""
    for topic in BATCH_TOPICS:
        for what, records in BATCHES.items():
            for version in (7, 13) if topic in ("written", "compacted") else (9,):
                data = [dict(name=topic, topic_id=Id(topic), partition_data=[dict(index=0, records=records)])]
                yield apis["Produce"], version, f"{what}, to {topic}", dict(acks=-1, timeout_ms=2000, topic_data=data)
    for client in ("edges", "__admin_client"):
        data = [dict(name="__consumer_offsets", partition_data=[dict(index=0, records=batch([record(0, struct.pack(">hh", 77, 0))]))])]
        yield apis["Produce"], 9, f"to an internal topic by {client}", dict(acks=-1, timeout_ms=2000, topic_data=data, _client=client)


SETTING_VALUES = ["", " ", "x", "true", "TRUE", "False", "-3", "-2", "-1", "0", "1", "0.5", "1.5", "5", " 5 ", "14", str(MAX32), str(MAX32 + 1), str(MAX64), "1e3", "delete", "compact", "delete,compact",
                  "compact, delete", "DELETE", "gzip", "producer", "GZIP", "LogAppendTime", "*", "0:1", "0:1,1:1", "0:a", None]


def settings(apis, topic_settings, broker_settings):
    """Values of settings: for a topic that is created, and for one that exists; broker settings that change while it runs."""
    for name in [*topic_settings, "no.such.setting", ""]:
        for value in SETTING_VALUES:
            topic = dict(name=Text("set"), num_partitions=1, replication_factor=1, assignments=[], configs=[dict(name=name, value=value)])
            yield apis["CreateTopics"], 7, f"{name}={value!r}", dict(topics=[topic], timeout_ms=5000, validate_only=True)
        for operation in range(5):
            for value in ("1", None, "x"):
                resource = dict(resource_type=2, resource_name="empty", configs=[dict(name=name, config_operation=operation, value=value)])
                yield apis["IncrementalAlterConfigs"], 1, f"topic {name}, operation {operation}, {value!r}", dict(resources=[resource], validate_only=True)
    for name in [*broker_settings, "no.such.setting", ""]:
        for broker, values in (("1", ("1",)), ("", ("x", "1", None))):
            for value in values:
                resource = dict(resource_type=4, resource_name=broker, configs=[dict(name=name, config_operation=0, value=value)])
                yield apis["IncrementalAlterConfigs"], 1, f"broker {broker!r} {name}={value!r}", dict(resources=[resource], validate_only=True)
    for version in apis["DescribeConfigs"].request.versions:
        for kind, name in ((2, "t"), (2, "compacted"), (4, "1"), (4, ""), (8, "1"), (16, "x"), (32, "g")):
            for keys in (None, [], ["log.cleaner.threads", "segment.bytes", "none"]):
                resource = dict(resource_type=kind, resource_name=name, configuration_keys=keys)
                yield apis["DescribeConfigs"], version, f"all of {kind} {name}, keys {keys}", dict(resources=[resource], include_synonyms=True, include_documentation=True)
