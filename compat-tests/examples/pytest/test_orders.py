from confluent_kafka import Consumer


def test_an_order_is_delivered(bootstrap_servers, topic, producer):
    producer.produce(topic, key="4711", value="paid")
    producer.flush()
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(10)
    consumer.close()
    assert (message.key(), message.value()) == (b"4711", b"paid")
