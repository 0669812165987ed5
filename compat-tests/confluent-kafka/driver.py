"""librdkafka through confluent-kafka."""
import time
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_NOT_AVAILABLE, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from common import input_closed, options, records, say, say_record

operation, o = options()
base = {"bootstrap.servers": o["bootstrap"]}


def consumer(group, **more):
    return Consumer({**base, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 10000,
                     "heartbeat.interval.ms": 500, "fetch.message.max.bytes": int(o.get("max_bytes", 1048576)), **more})


def show(m):
    kind, timestamp = m.timestamp()
    say_record(m.partition(), m.offset(), timestamp if kind != TIMESTAMP_NOT_AVAILABLE else -1, m.key(), m.value(), m.headers())


if operation == "metadata":
    metadata = AdminClient(base).list_topics(timeout=10)
    for b in metadata.brokers.values():
        say("broker", f"{b.host}:{b.port}")
    for t in metadata.topics.values():
        say("topic", t.topic, len(t.partitions))
elif operation == "create":
    admin = AdminClient(base)
    for future in admin.create_topics([NewTopic(o["topic"], int(o["partitions"]), 1)]).values():
        future.result(20)
elif operation == "produce":
    codec = {"none": {}}.get(o["codec"], {"compression.type": o["codec"]})
    producer = Producer({**base, **codec, "enable.idempotence": True, "message.max.bytes": int(o.get("max_bytes", 1000000)), "linger.ms": 50})
    failed = []
    for number, (key, value, headers, partition, timestamp) in enumerate(records(o["file"])):
        def done(error, message, number=number):
            failed.append(error) if error else say("ack", number, message.offset())
        more = {"timestamp": timestamp} if timestamp else {}
        producer.produce(o["topic"], value=value, key=key, headers=headers, partition=partition, on_delivery=done, **more)
    producer.flush(60)
    assert not failed, failed[0]
elif operation == "consume":
    c = consumer("reader")
    where = TopicPartition(o["topic"], int(o["partition"]), OFFSET_BEGINNING)
    kind, _, place = o["start"].partition(":")
    if kind == "offset":
        where.offset = int(place)
    elif kind == "timestamp":
        where = c.offsets_for_times([TopicPartition(o["topic"], int(o["partition"]), int(place))], timeout=10)[0]
    low, end = c.get_watermark_offsets(TopicPartition(o["topic"], int(o["partition"])), timeout=10)
    c.assign([where])
    last = low - 1 if where.offset < 0 else where.offset - 1
    while last < end - 1:
        message = c.poll(20)
        assert message is not None and not message.error(), message and message.error()
        show(message)
        last = message.offset()
    c.close()
elif operation == "group":
    closed = input_closed()
    c = consumer(o["group"])
    held = set()
    def changed(add, remove):
        held.update(p.partition for p in add)
        held.difference_update(p.partition for p in remove)
        say("assigned", ",".join(map(str, sorted(held))))
    c.subscribe([o["topic"]], on_assign=lambda _, ps: changed(ps, []), on_revoke=lambda _, ps: changed([], ps))
    while not closed.is_set():
        message = c.poll(0.1)
        if message and not message.error():
            show(message)
            c.commit(message=message, asynchronous=False)
    c.close()
elif operation == "stream":
    closed = input_closed()
    producer = Producer({**base, "enable.idempotence": True, "message.timeout.ms": 120000, "retry.backoff.ms": 50, "reconnect.backoff.max.ms": 200, "linger.ms": 5})
    number = 0
    while not closed.is_set():
        if len(producer) < 2000:
            value = f"s{number}"
            producer.produce(o["topic"], value=value, partition=0, on_delivery=lambda e, m: None if e else say("ack", m.value().decode()))
            number += 1
            producer.poll(0)
        else:
            producer.poll(0.01)
    producer.flush(60)
