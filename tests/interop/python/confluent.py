"""librdkafka by confluent-kafka."""

import time

from confluent_kafka import (
    Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition,
    OFFSET_BEGINNING,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)

from records import CODECS, NOW_MS, Stop, check_same, eventually, main, sample, say

WAIT = 200


def admin_of(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap})


def create(bootstrap, topic, partitions, config=None):
    admin = admin_of(bootstrap)
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config or {})
    admin.create_topics([new], operation_timeout=WAIT)[topic].result(WAIT)
    return admin


def producer_of(bootstrap, **settings):
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **{k.replace("_", "."): v for k, v in settings.items()}})


def send_all(producer, topic, records, partition):
    """Returns the offsets in the order of the records."""
    offsets = []

    def delivered(error, message):
        assert error is None, f"{topic}: {error}"
        offsets.append(message.offset())

    for key, value, headers, timestamp in records:
        producer.produce(topic, value, key, partition, on_delivery=delivered, timestamp=timestamp, headers=headers)
    left = producer.flush(WAIT)
    assert left == 0, f"{topic}: {left} records were not delivered"
    return offsets


def read_all(bootstrap, assignment, count):
    """Reads `count` messages from the beginning of the partitions, without a group."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": False})
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in assignment])
    messages = []
    deadline = time.monotonic() + WAIT
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records read"
        message = consumer.poll(1)
        if message is not None:
            assert message.error() is None, message.error()
            messages.append(message)
    assert consumer.poll(0.5) is None, "more records than were written"
    consumer.close()
    return messages


def fields(message):
    return message.key(), message.value(), message.headers() or [], message.timestamp()[1]


def data(bootstrap):
    for codec in CODECS:
        topic = f"confluent-{codec}"
        create(bootstrap, topic, 2)
        records = sample(codec)
        for partition, settings in enumerate([{"acks": "all", "enable_idempotence": True}, {"acks": "1"}]):
            producer = producer_of(bootstrap, compression_type=codec, **settings)
            offsets = send_all(producer, topic, records, partition)
            assert offsets == list(range(len(records))), offsets
        messages = read_all(bootstrap, [(topic, 0), (topic, 1)], 2 * len(records))
        for partition in (0, 1):
            mine = [m for m in messages if m.partition() == partition]
            assert [m.offset() for m in mine] == list(range(len(records)))
            check_same([fields(m) for m in mine], records, f"{codec} partition {partition}")

    # acks=0 hears nothing back; the records arrive all the same.
    create(bootstrap, "confluent-acks-0", 1)
    records = sample("none")
    send_all(producer_of(bootstrap, acks="0"), "confluent-acks-0", records, 0)
    messages = read_all(bootstrap, [("confluent-acks-0", 0)], len(records))
    check_same([fields(m) for m in messages], records, "acks 0")


def recoded(bootstrap):
    """Topics of every compression.type take batches that came uncompressed and in gzip, and give them back the same."""
    records = sample("gzip")
    for kind in ["producer", "uncompressed"] + CODECS[1:]:
        topic = f"confluent-into-{kind}"
        create(bootstrap, topic, 2, {"compression.type": kind})
        for partition, codec in enumerate(["none", "gzip"]):
            producer = producer_of(bootstrap, compression_type=codec, acks="all", enable_idempotence=True)
            offsets = send_all(producer, topic, records, partition)
            assert offsets == list(range(len(records))), offsets
        messages = read_all(bootstrap, [(topic, 0), (topic, 1)], 2 * len(records))
        for partition in (0, 1):
            mine = [m for m in messages if m.partition() == partition]
            assert [m.offset() for m in mine] == list(range(len(records)))
            check_same([fields(m) for m in mine], records, f"{topic} partition {partition}")


def transactions(bootstrap):
    """There are none, and a producer that wants them is told so for good; it asked for a coordinator again and again."""
    producer = producer_of(bootstrap, transactional_id="wanted")
    try:
        producer.init_transactions(30)
    except KafkaException as exception:
        error = exception.args[0]
        assert error.fatal() and error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, error
    else:
        raise AssertionError("transactions are not served")


def spread(bootstrap):
    topic, count = "confluent-spread", 100
    admin = create(bootstrap, topic, count)
    metadata = admin.list_topics(topic, timeout=WAIT)
    leaders = {p.leader for p in metadata.topics[topic].partitions.values()}
    assert leaders == set(metadata.brokers), f"leaders {leaders} of brokers {set(metadata.brokers)}"
    producer = producer_of(bootstrap, acks="all")
    for partition in range(count):
        producer.produce(topic, f"value {partition}", f"key {partition}", partition)
    assert producer.flush(WAIT) == 0
    messages = read_all(bootstrap, [(topic, p) for p in range(count)], count)
    assert sorted((m.partition(), m.value()) for m in messages) == [(p, f"value {p}".encode()) for p in range(count)]

    latest = admin.list_offsets({TopicPartition(topic, p): OffsetSpec.latest() for p in range(count)})
    assert {f.result(WAIT).offset for f in latest.values()} == {1}

    # Offsets by time: one record every 100 ms of record time.
    create(bootstrap, "confluent-times", 1)
    records = [(b"k", f"{i}".encode(), [], NOW_MS + 100 * i) for i in range(200)]
    send_all(producer_of(bootstrap, acks="all"), "confluent-times", records, 0)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    for timestamp, wanted in [(0, 0), (NOW_MS, 0), (NOW_MS + 1, 1), (NOW_MS + 4_950, 50), (NOW_MS + 19_900, 199)]:
        found = consumer.offsets_for_times([TopicPartition("confluent-times", 0, timestamp)], timeout=WAIT)[0]
        assert found.error is None and found.offset == wanted, f"at {timestamp - NOW_MS}: {found}"
    after = consumer.offsets_for_times([TopicPartition("confluent-times", 0, NOW_MS + 20_000)], timeout=WAIT)[0]
    assert after.error is None and after.offset in (-1, 200), after
    assert consumer.get_watermark_offsets(TopicPartition("confluent-times", 0), timeout=WAIT) == (0, 200)
    consumer.close()


def code_of(future):
    try:
        future.result(WAIT)
    except KafkaException as error:
        return error.args[0].code()
    return None


def admin(bootstrap):
    topic = "confluent-admin"
    admin = create(bootstrap, topic, 3, {"retention.ms": "86400000", "segment.bytes": "1048576"})
    assert topic in admin.list_topics(timeout=WAIT).topics
    again = admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])[topic]
    assert code_of(again) == KafkaError.TOPIC_ALREADY_EXISTS
    wrong = admin.create_topics([NewTopic("confluent-wrong", 1, 1, config={"retention.ms": "soon"})])["confluent-wrong"]
    assert code_of(wrong) == KafkaError.INVALID_CONFIG
    named = admin.create_topics([NewTopic("not/a/name", 1, 1)])["not/a/name"]
    assert code_of(named) == KafkaError.TOPIC_EXCEPTION
    check = admin.create_topics([NewTopic("confluent-check", 1, 1)], validate_only=True)["confluent-check"]
    check.result(WAIT)
    assert "confluent-check" not in admin.list_topics(timeout=WAIT).topics
    assert code_of(admin.delete_topics(["confluent-absent"])["confluent-absent"]) == KafkaError.UNKNOWN_TOPIC_OR_PART

    described = admin.describe_topics(TopicCollection([topic]))[topic].result(WAIT)
    assert [len(p.replicas) for p in described.partitions] == [1, 1, 1], described.partitions
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(WAIT)
    eventually("5 partitions", lambda: len(admin.list_topics(topic, timeout=WAIT).topics[topic].partitions) == 5)
    assert code_of(admin.create_partitions([NewPartitions(topic, 4)])[topic]) == KafkaError.INVALID_PARTITIONS

    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(WAIT)
    assert entries["retention.ms"].value == "86400000" and not entries["retention.ms"].is_default
    assert entries["cleanup.policy"].value == "delete" and entries["cleanup.policy"].is_default
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("segment.bytes", None, incremental_operation=AlterConfigOpType.DELETE),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
    ])
    admin.incremental_alter_configs([change])[change].result(WAIT)

    def changed():
        entries = admin.describe_configs([resource])[resource].result(WAIT)
        policy = set(entries["cleanup.policy"].value.split(","))
        return entries["retention.ms"].value == "7200000" and entries["segment.bytes"].value == "1073741824" and policy == {"compact", "delete"}

    eventually("changed topic configs", changed)
    cluster = admin.describe_cluster().result(WAIT)
    assert cluster.cluster_id and cluster.nodes and cluster.controller is not None
    broker = ConfigResource(ResourceType.BROKER, str(cluster.nodes[0].id))
    entries = admin.describe_configs([broker])[broker].result(WAIT)
    assert "log.retention.hours" in entries and "message.max.bytes" in entries, sorted(entries)

    create(bootstrap, "confluent-cut", 1)
    send_all(producer_of(bootstrap), "confluent-cut", [(None, b"%d" % i, [], NOW_MS) for i in range(10)], 0)
    cut = TopicPartition("confluent-cut", 0, 6)
    assert admin.delete_records([cut])[cut].result(WAIT).low_watermark == 6
    spec = {TopicPartition("confluent-cut", 0): OffsetSpec.earliest()}
    assert [f.result(WAIT).offset for f in admin.list_offsets(spec).values()] == [6]
    beyond = TopicPartition("confluent-cut", 0, 99)
    assert code_of(admin.delete_records([beyond])[beyond]) == KafkaError.OFFSET_OUT_OF_RANGE

    admin.delete_topics([topic], operation_timeout=WAIT)[topic].result(WAIT)
    eventually("topic gone", lambda: topic not in admin.list_topics(timeout=WAIT).topics)


def produce(bootstrap, topic, first, end):
    producer = producer_of(bootstrap, acks="all")
    failed = []
    for i in range(int(first), int(end)):
        producer.produce(topic, f"v{i}", f"v{i}", on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
    assert producer.flush(WAIT) == 0 and not failed, failed


def consume(bootstrap, topic, group, count):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    seen = 0
    while seen < int(count):
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            say("value", message.value().decode())
            seen += 1
    consumer.commit(asynchronous=False)
    consumer.close()


def member(bootstrap, topic, group, strategy, instance, session_ms):
    stop = Stop()
    settings = {
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "session.timeout.ms": int(session_ms), "heartbeat.interval.ms": 1000,
        "partition.assignment.strategy": "cooperative-sticky" if strategy == "cooperative" else "range",
    }
    if instance != "-":
        settings["group.instance.id"] = instance
    consumer = Consumer(settings)
    held = set()

    def tell(word, partitions):
        say(word, *sorted(p.partition for p in partitions))

    def assigned(_, partitions):
        held.update(p.partition for p in partitions)
        say("assigned", *sorted(held))

    def revoked(_, partitions):
        tell("revoked", partitions)
        held.difference_update(p.partition for p in partitions)
        if strategy == "cooperative":
            say("assigned", *sorted(held))

    consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked)
    while not stop.set:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            say("value", message.value().decode())
    consumer.close()
    say("closed")


def lag(bootstrap, topic, group):
    """A group that has read 10 of 30 records: its lag, a reset, its deletion, all by admin calls."""
    admin = create(bootstrap, topic, 1)
    produce(bootstrap, topic, 0, 30)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    eventually("an assignment", lambda: consumer.poll(1) and consumer.assignment())
    consumer.commit(offsets=[TopicPartition(topic, 0, 10, metadata="ten")], asynchronous=False)

    described = admin.describe_consumer_groups([group])[group].result(WAIT)
    assert described.state.name == "STABLE" and len(described.members) == 1, (described.state, described.members)
    assert [p.topic for p in described.members[0].assignment.topic_partitions] == [topic]
    assert code_of(admin.delete_consumer_groups([group])[group]) == KafkaError.NON_EMPTY_GROUP
    consumer.close()

    def committed():
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
        return admin.list_consumer_group_offsets([request])[group].result(WAIT).topic_partitions[0]

    found = committed()
    assert found.offset == 10 and found.metadata == "ten", found
    end = admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.latest()})
    assert [f.result(WAIT).offset - found.offset for f in end.values()] == [20]
    reset = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 25)])
    admin.alter_consumer_group_offsets([reset])[group].result(WAIT)
    assert committed().offset == 25
    listed = admin.list_consumer_groups().result(WAIT)
    assert not listed.errors and group in [g.group_id for g in listed.valid], listed.valid
    admin.delete_consumer_groups([group])[group].result(WAIT)
    assert group not in [g.group_id for g in admin.list_consumer_groups().result(WAIT).valid]


if __name__ == "__main__":
    main({f.__name__: f for f in (data, recoded, transactions, spread, admin, produce, consume, member, lag)})
