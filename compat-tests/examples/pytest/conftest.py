import os
import uuid

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic


@pytest.fixture(scope="session")
def bootstrap_servers():
    """The broker that `dlog run` started for this test run."""
    return os.environ["KAFKA_BOOTSTRAP_SERVERS"]


@pytest.fixture
def topic(bootstrap_servers):
    """A topic of its own for each test, so that tests do not depend on each other."""
    name = f"test-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(name, num_partitions=1)])[name].result()
    yield name
    admin.delete_topics([name])[name].result()


@pytest.fixture
def producer(bootstrap_servers):
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    yield producer
    producer.flush()
