"""kafka-python."""

import time

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    InvalidConfigurationError, InvalidPartitionsError, InvalidTopicError, KafkaError, TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata

from records import CODECS, NOW_MS, Stop, check_same, eventually, main, sample, say

WAIT = 200


def create(bootstrap, topic, partitions, configs=None):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    options = {"num_partitions": partitions, "replication_factor": 1, "configs": configs or {}}
    admin.create_topics({topic: options}, wait_for_metadata=True)
    return admin


def send_all(producer, topic, records, partition):
    futures = [producer.send(topic, value, key, headers, partition, timestamp) for key, value, headers, timestamp in records]
    producer.flush(WAIT)
    return [future.get(WAIT).offset for future in futures]


def read_all(bootstrap, partitions, count):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.assign(partitions)
    records = []
    deadline = time.monotonic() + WAIT
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records read"
        for found in consumer.poll(1000).values():
            records.extend(found)
    consumer.close()
    assert len(records) == count, f"{len(records)} records read, {count} written"
    return records


def fields(record):
    return record.key, record.value, list(record.headers), record.timestamp


def data(bootstrap):
    for codec in CODECS:
        topic = f"python-{codec}"
        create(bootstrap, topic, 3)
        records = sample(codec)
        for partition, settings in enumerate([{"acks": "all", "enable_idempotence": True}, {"acks": 1}, {"acks": 0}]):
            settings.setdefault("enable_idempotence", False)
            producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec, **settings)
            offsets = send_all(producer, topic, records, partition)
            assert partition == 2 or offsets == list(range(len(records))), offsets
            producer.close()
        found = read_all(bootstrap, [TopicPartition(topic, p) for p in range(3)], 3 * len(records))
        for partition in range(3):
            mine = [r for r in found if r.partition == partition]
            assert [r.offset for r in mine] == list(range(len(records)))
            check_same([fields(r) for r in mine], records, f"{codec} partition {partition}")


def spread(bootstrap):
    topic, count = "python-spread", 100
    admin = create(bootstrap, topic, count)
    described = admin.describe_topics([topic])[0]
    leaders = {p["leader_id"] for p in described["partitions"]}
    brokers = {b["broker_id" if "broker_id" in b else "node_id"] for b in admin.describe_cluster()["brokers"]}
    assert leaders == brokers, f"leaders {leaders} of brokers {brokers}"
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for partition in range(count):
        producer.send(topic, b"value %d" % partition, b"k", partition=partition)
    producer.flush(WAIT)
    partitions = [TopicPartition(topic, p) for p in range(count)]
    found = read_all(bootstrap, partitions, count)
    assert sorted((r.partition, r.value) for r in found) == [(p, b"value %d" % p) for p in range(count)]

    # Offsets by time: one record every 100 ms of record time.
    create(bootstrap, "python-times", 1)
    send_all(producer, "python-times", [(b"k", b"%d" % i, [], NOW_MS + 100 * i) for i in range(200)], 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    at = TopicPartition("python-times", 0)
    for timestamp, wanted in [(0, 0), (NOW_MS, 0), (NOW_MS + 1, 1), (NOW_MS + 4_950, 50), (NOW_MS + 19_900, 199)]:
        found = consumer.offsets_for_times({at: timestamp})[at]
        assert found.offset == wanted and found.timestamp == NOW_MS + 100 * wanted, f"at {timestamp - NOW_MS}: {found}"
    assert consumer.offsets_for_times({at: NOW_MS + 20_000})[at] is None
    assert consumer.end_offsets(partitions) == {p: 1 for p in partitions}
    assert consumer.end_offsets([at]) == {at: 200}
    assert consumer.beginning_offsets([at]) == {at: 0}
    consumer.close()


def refused(error, call):
    try:
        call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


def admin(bootstrap):
    topic = "python-admin"
    admin = create(bootstrap, topic, 3, {"retention.ms": "86400000"})
    options = {"num_partitions": 1, "replication_factor": 1}
    refused(TopicAlreadyExistsError, lambda: admin.create_topics({topic: options}))
    refused(InvalidConfigurationError, lambda: admin.create_topics({"python-wrong": {**options, "configs": {"retention.ms": "soon"}}}))
    refused(InvalidTopicError, lambda: admin.create_topics({"python/wrong": options}))
    refused(UnknownTopicOrPartitionError, lambda: admin.delete_topics(["python-absent"]))
    assert topic in admin.list_topics()
    admin.create_partitions({topic: 5})
    eventually("5 partitions", lambda: len(admin.describe_topics([topic])[0]["partitions"]) == 5)
    refused(InvalidPartitionsError, lambda: admin.create_partitions({topic: 2}))

    def config(key):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        return admin.describe_configs([resource], config_filter="all")["topic"][topic][key]["value"]

    assert (config("retention.ms"), config("cleanup.policy")) == ("86400000", "delete")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7200000"})])
    eventually("a changed config", lambda: config("retention.ms") == "7200000")
    assert admin.describe_cluster()["cluster_id"]

    create(bootstrap, "python-cut", 1)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    send_all(producer, "python-cut", [(None, b"%d" % i, [], NOW_MS) for i in range(10)], 0)
    logs = [t for broker in admin.describe_log_dirs({"python-cut": [0]}) for d in broker["log_dirs"] for t in d["topics"]]
    assert sum(p["partition_size"] for t in logs for p in t["partitions"]) > 0, logs
    cut = TopicPartition("python-cut", 0)
    admin.delete_records({cut: 6})
    assert KafkaConsumer(bootstrap_servers=bootstrap).beginning_offsets([cut]) == {cut: 6}
    admin.delete_topics([topic])
    eventually("topic gone", lambda: topic not in admin.list_topics())


def produce(bootstrap, topic, first, end):
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    futures = [producer.send(topic, b"v%d" % i, b"v%d" % i) for i in range(int(first), int(end))]
    for future in futures:
        future.get(WAIT)


def consume(bootstrap, topic, group, count):
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False, max_poll_records=1)
    seen = 0
    while seen < int(count):
        for records in consumer.poll(1000).values():
            for record in records:
                say("value", record.value.decode())
                seen += 1
    consumer.commit()
    consumer.close(autocommit=False)


def member(bootstrap, topic, group, strategy, instance, session_ms):
    stop = Stop()

    class Listener(ConsumerRebalanceListener):
        held = set()

        def on_partitions_revoked(self, revoked):
            if revoked:
                say("revoked", *sorted(p.partition for p in revoked))
                self.held.difference_update(p.partition for p in revoked)
                if strategy == "cooperative":
                    say("assigned", *sorted(self.held))

        def on_partitions_assigned(self, assigned):
            self.held.update(p.partition for p in assigned)
            say("assigned", *sorted(self.held))

    assignor = CooperativeStickyAssignor if strategy == "cooperative" else RangePartitionAssignor
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", session_timeout_ms=int(session_ms),
        request_timeout_ms=int(session_ms) + 30_000, heartbeat_interval_ms=1000, partition_assignment_strategy=[assignor],
        group_instance_id=None if instance == "-" else instance,
    )
    consumer.subscribe([topic], listener=Listener())
    while not stop.set:
        for records in consumer.poll(200).values():
            for record in records:
                say("value", record.value.decode())
    consumer.close()
    say("closed")


def lag(bootstrap, topic, group):
    """A group that has read 10 of 30 records: its lag, a reset, its deletion, all by admin calls."""
    admin = create(bootstrap, topic, 1)
    produce(bootstrap, topic, 0, 30)
    at = TopicPartition(topic, 0)
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    eventually("an assignment", lambda: consumer.poll(1000) and consumer.assignment())
    consumer.commit({at: OffsetAndMetadata(10, "ten", -1)})
    described = admin.describe_groups([group])[group]
    assert described["group_state"] == "Stable" and len(described["members"]) == 1, described
    end = consumer.end_offsets([at])[at]
    assert end - consumer.committed(at) == 20
    consumer.close(autocommit=False)

    def committed():
        return admin.list_group_offsets({group: [at]})[group][at]

    assert (committed().offset, committed().metadata) == (10, "ten"), committed()
    admin.alter_group_offsets(group, {at: OffsetAndMetadata(25, "", -1)})
    assert committed().offset == 25, committed()
    assert group in [g["group_id"] for g in admin.list_groups()]
    admin.delete_groups([group])
    assert group not in [g["group_id"] for g in admin.list_groups()]


if __name__ == "__main__":
    main({f.__name__: f for f in (data, spread, admin, produce, consume, member, lag)})
