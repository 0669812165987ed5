"""librdkafka through confluent-kafka."""
import random, time
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from common import input_closed, options, records, say, say_record

operation, o = options()
base = {"bootstrap.servers": o["bootstrap"]}


def consumer(group, **more):
    return Consumer({**base, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 10000,
                     "heartbeat.interval.ms": 500, "fetch.message.max.bytes": int(o.get("max_bytes", 1048576)),
                     "isolation.level": o.get("isolation", "read_uncommitted"), **more})


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
elif operation == "reports":
    producer = Producer({**base, "linger.ms": 500})
    for number, (key, value, headers, partition, timestamp) in enumerate(records(o["file"])):
        def reported(error, message, number=number):
            say("error", number, error.code()) if error else say("ack", number, message.offset())
        producer.produce(o["topic"], value=value, key=key, partition=partition, on_delivery=reported)
    producer.flush(60)
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
    # The last offsets may be markers: then the position gets there, and no record.
    while last < end - 1 and c.position([where])[0].offset < end:
        message = c.poll(1)
        if message is None:
            continue
        assert not message.error(), message.error()
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
    number, begin, rate, partitions = 0, time.time(), float(o.get("rate", "inf")), int(o.get("partitions", 1))
    while not closed.is_set():
        if len(producer) < 2000 and number < (time.time() - begin) * rate:
            value = f"s{number}"
            producer.produce(o["topic"], value=value, partition=number % partitions, on_delivery=lambda e, m: None if e else say("ack", m.value().decode()))
            number += 1
            producer.poll(0)
        else:
            producer.poll(0.01)
    producer.flush(60)
elif operation == "transform":
    closed = input_closed()
    # With "rebootstrap" (KIP-899, the default) librdkafka 2.1x forgets the only broker when it dies, and then may wait for ever in
    # send_offsets_to_transaction: after AddOffsetsToTxn's answer it sends no TxnOffsetCommit, since the group coordinator that it remembers is the forgotten broker.
    base["metadata.recovery.strategy"] = "none"
    producer = Producer({**base, "transactional.id": o["id"], "retry.backoff.ms": 50, "reconnect.backoff.max.ms": 200, "transaction.timeout.ms": 10000})
    c = consumer(o["group"], **{"session.timeout.ms": 6000})
    c.subscribe([o["from"]])
    producer.init_transactions(60)
    say("ready")
    chance = random.Random(o["id"])

    def again(work):
        """Repeats what may be repeated; a fatal error ends this process, and a new one takes its place."""
        while True:
            try:
                return work()
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise

    def abort():
        again(lambda: producer.abort_transaction(30))
        # Back to what the group has committed.
        for place in again(lambda: c.committed(c.assignment(), timeout=30)):
            place.offset = place.offset if place.offset >= 0 else OFFSET_BEGINNING
            c.seek(place)

    while not closed.is_set():
        messages = [m for m in c.consume(100, 0.2) if not m.error()]
        if not messages:
            continue
        producer.begin_transaction()
        try:
            for m in messages:
                producer.produce(o["to"], value=b"t:" + m.value(), partition=m.partition())
            if chance.random() < 0.1:
                producer.flush(30)
                abort()
                continue
            again(lambda: producer.send_offsets_to_transaction(c.position(c.assignment()), c.consumer_group_metadata(), 30))
            again(lambda: producer.commit_transaction(30))
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            abort()
    c.close()
