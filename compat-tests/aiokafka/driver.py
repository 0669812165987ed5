"""aiokafka."""
import asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from common import input_closed, options, records, say, say_record

operation, o = options()
base = {"bootstrap_servers": o["bootstrap"]}
limit = int(o.get("max_bytes", 1048576))


def show(m):
    say_record(m.partition, m.offset, m.timestamp, m.key, m.value, m.headers)


async def with_admin(work):
    admin = AIOKafkaAdminClient(**base)
    await admin.start()
    try:
        return await work(admin)
    finally:
        await admin.close()


async def metadata(admin):
    for b in (await admin.describe_cluster())["brokers"]:
        say("broker", f"{b['host']}:{b['port']}")
    for t in await admin.describe_topics():
        say("topic", t["topic"], len(t["partitions"]))


async def produce():
    codec = None if o["codec"] == "none" else o["codec"]
    producer = AIOKafkaProducer(**base, acks="all", compression_type=codec, max_request_size=max(limit, 1048576), linger_ms=20)
    await producer.start()
    sent = [await producer.send(o["topic"], value=v, key=k, headers=h, partition=p, timestamp_ms=t) for k, v, h, p, t in records(o["file"])]
    for number, future in enumerate(sent):
        say("ack", number, (await future).offset)
    await producer.stop()


async def consume():
    consumer = AIOKafkaConsumer(**base, auto_offset_reset="earliest", max_partition_fetch_bytes=limit)
    await consumer.start()
    where = TopicPartition(o["topic"], int(o["partition"]))
    consumer.assign([where])
    end = (await consumer.end_offsets([where]))[where]
    kind, _, place = o["start"].partition(":")
    if kind == "timestamp":
        place = (await consumer.offsets_for_times({where: int(place)}))[where].offset
    await consumer.seek_to_beginning(where) if kind == "beginning" else consumer.seek(where, int(place))
    while await consumer.position(where) < end:
        for message in (await consumer.getmany(timeout_ms=1000)).get(where, []):
            show(message)
    await consumer.stop()


class Listener(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        say("assigned", ",".join(str(p.partition) for p in assigned))


async def group():
    closed = input_closed()
    consumer = AIOKafkaConsumer(**base, group_id=o["group"], auto_offset_reset="earliest", enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=500)
    consumer.subscribe([o["topic"]], listener=Listener())
    await consumer.start()
    while not closed.is_set():
        batch = [m for ms in (await consumer.getmany(timeout_ms=100)).values() for m in ms]
        for message in batch:
            show(message)
        if batch:
            await consumer.commit()
    await consumer.stop()


async def stream():
    closed = input_closed()
    producer = AIOKafkaProducer(**base, enable_idempotence=True, linger_ms=5, retry_backoff_ms=50, request_timeout_ms=120000)
    await producer.start()
    number = 0
    while not closed.is_set():
        futures = []
        for _ in range(200):
            futures.append((f"s{number}", await producer.send(o["topic"], value=f"s{number}".encode(), partition=0)))
            number += 1
        for value, future in futures:
            await future
            say("ack", value)
    await producer.stop()


work = {
    "metadata": lambda: with_admin(metadata),
    "create": lambda: with_admin(lambda admin: admin.create_topics([NewTopic(o["topic"], int(o["partitions"]), 1)])),
    "produce": produce, "consume": consume, "group": group, "stream": stream,
}
asyncio.run(work[operation]())
