"""kafka-python."""
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from common import input_closed, options, records, say, say_record

operation, o = options()
base = {"bootstrap_servers": o["bootstrap"]}
limit = int(o.get("max_bytes", 1048576))


def show(m):
    say_record(m.partition, m.offset, m.timestamp, m.key, m.value, m.headers)


if operation == "metadata":
    consumer = KafkaConsumer(**base)
    for topic in consumer.topics():
        say("topic", topic, len(consumer.partitions_for_topic(topic)))
    consumer.close()
    for b in KafkaAdminClient(**base).describe_cluster()["brokers"]:
        say("broker", f"{b['host']}:{b['port']}")
elif operation == "create":
    KafkaAdminClient(**base).create_topics([NewTopic(o["topic"], int(o["partitions"]), 1)])
elif operation == "produce":
    codec = None if o["codec"] == "none" else o["codec"]
    producer = KafkaProducer(**base, acks="all", compression_type=codec, max_request_size=max(limit, 1048576), linger_ms=20)
    sent = [producer.send(o["topic"], value=v, key=k, headers=h, partition=p, timestamp_ms=t) for k, v, h, p, t in records(o["file"])]
    for number, future in enumerate(sent):
        say("ack", number, future.get(60).offset)
    producer.close()
elif operation == "consume":
    consumer = KafkaConsumer(**base, fetch_max_bytes=52428800, max_partition_fetch_bytes=limit)
    where = TopicPartition(o["topic"], int(o["partition"]))
    consumer.assign([where])
    end = consumer.end_offsets([where])[where]
    kind, _, place = o["start"].partition(":")
    if kind == "timestamp":
        place = consumer.offsets_for_times({where: int(place)})[where].offset
    consumer.seek_to_beginning(where) if kind == "beginning" else consumer.seek(where, int(place))
    while consumer.position(where) < end:
        for message in consumer.poll(1000).get(where, []):
            show(message)
    consumer.close()
elif operation == "group":
    closed = input_closed()
    consumer = KafkaConsumer(**base, group_id=o["group"], auto_offset_reset="earliest", enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=500)

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked):
            pass

        def on_partitions_assigned(self, assigned):
            say("assigned", ",".join(str(p.partition) for p in assigned))

    consumer.subscribe([o["topic"]], listener=Listener())
    # Not shorter: in 3.0.12 a poll that gives up between the leader's assignment and the answer to its SyncGroup never takes that answer
    # (join_group_async asks need_rejoin() again, which the assignment has already made false), and the member stays without partitions.
    while not closed.is_set():
        batch = [m for ms in consumer.poll(2000).values() for m in ms]
        for message in batch:
            show(message)
        if batch:
            consumer.commit()
    consumer.close(autocommit=False)
elif operation == "stream":
    closed = input_closed()
    producer = KafkaProducer(**base, enable_idempotence=True, linger_ms=5, retry_backoff_ms=50, reconnect_backoff_max_ms=200, delivery_timeout_ms=120000)
    number = 0
    while not closed.is_set():
        futures = []
        for _ in range(200):
            futures.append((f"s{number}", producer.send(o["topic"], value=f"s{number}".encode(), partition=0)))
            number += 1
        for value, future in futures:
            future.get(120)
            say("ack", value)
    producer.close()
