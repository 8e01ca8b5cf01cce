"""aiokafka."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, for_code
from aiokafka.structs import OffsetAndMetadata

from records import CODECS, NOW_MS, Stop, check_same, main, sample, say

WAIT = 200


async def eventually(what, probe):
    async def loop():
        while not await probe():
            await asyncio.sleep(0.1)

    try:
        await asyncio.wait_for(loop(), WAIT)
    except asyncio.TimeoutError:
        raise AssertionError(f"{what}: not within {WAIT} s") from None


async def admin_of(bootstrap):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    return admin


def only_error(response):
    """The name of the error in a reply about one topic."""
    errors = getattr(response, "topic_errors", None) or response.topic_error_codes
    return for_code(errors[0][1]).__name__


async def create(bootstrap, topic, partitions, configs=None):
    admin = await admin_of(bootstrap)
    response = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs or {})])
    assert only_error(response) == "NoError", response
    return admin


async def producer_of(bootstrap, **settings):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **settings)
    await producer.start()
    return producer


async def send_all(producer, topic, records, partition):
    futures = [
        await producer.send(topic, value, key, partition, timestamp, headers or None) for key, value, headers, timestamp in records
    ]
    done = await asyncio.wait_for(asyncio.gather(*futures), WAIT)
    # With acks=0 there is nothing to tell.
    return [metadata and metadata.offset for metadata in done]


async def read_all(bootstrap, partitions, count):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    consumer.assign(partitions)

    records = []

    async def loop():
        while len(records) < count:
            for found in (await consumer.getmany(timeout_ms=1000)).values():
                records.extend(found)

    try:
        await asyncio.wait_for(loop(), WAIT)
    finally:
        await consumer.stop()
    assert len(records) == count, f"{len(records)} records read, {count} written"
    return records


def fields(record):
    return record.key, record.value, list(record.headers), record.timestamp


async def data(bootstrap):
    for codec in CODECS:
        topic = f"aio-{codec}"
        await (await create(bootstrap, topic, 3)).close()
        records = sample(codec)
        for partition, settings in enumerate([{"acks": "all", "enable_idempotence": True}, {"acks": 1}, {"acks": 0}]):
            producer = await producer_of(bootstrap, compression_type=None if codec == "none" else codec, **settings)
            offsets = await send_all(producer, topic, records, partition)
            assert partition == 2 or offsets == list(range(len(records))), offsets
            await producer.stop()
        found = await read_all(bootstrap, [TopicPartition(topic, p) for p in range(3)], 3 * len(records))
        for partition in range(3):
            mine = [r for r in found if r.partition == partition]
            assert [r.offset for r in mine] == list(range(len(records)))
            check_same([fields(r) for r in mine], records, f"{codec} partition {partition}")


async def spread(bootstrap):
    topic, count = "aio-spread", 100
    admin = await create(bootstrap, topic, count)
    cluster = await admin.describe_cluster()
    brokers = {b["node_id"] for b in cluster["brokers"]}

    async def led_by_all():
        leaders = {p["leader"] for p in (await admin.describe_topics([topic]))[0]["partitions"]}
        return leaders == brokers

    await eventually("leaders on every broker", led_by_all)
    producer = await producer_of(bootstrap)
    for partition in range(count):
        await producer.send(topic, b"value %d" % partition, b"k", partition)
    await producer.flush()
    partitions = [TopicPartition(topic, p) for p in range(count)]
    found = await read_all(bootstrap, partitions, count)
    assert sorted((r.partition, r.value) for r in found) == [(p, b"value %d" % p) for p in range(count)]

    # Offsets by time: one record every 100 ms of record time.
    await (await create(bootstrap, "aio-times", 1)).close()
    await send_all(producer, "aio-times", [(b"k", b"%d" % i, [], NOW_MS + 100 * i) for i in range(200)], 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    at = TopicPartition("aio-times", 0)
    for timestamp, wanted in [(0, 0), (NOW_MS, 0), (NOW_MS + 1, 1), (NOW_MS + 4_950, 50), (NOW_MS + 19_900, 199)]:
        found = (await consumer.offsets_for_times({at: timestamp}))[at]
        assert found.offset == wanted and found.timestamp == NOW_MS + 100 * wanted, f"at {timestamp - NOW_MS}: {found}"
    assert (await consumer.offsets_for_times({at: NOW_MS + 20_000}))[at] is None
    assert await consumer.end_offsets(partitions) == {p: 1 for p in partitions}
    assert await consumer.end_offsets([at]) == {at: 200} and await consumer.beginning_offsets([at]) == {at: 0}
    await consumer.stop()
    await producer.stop()
    await admin.close()


async def admin(bootstrap):
    topic = "aio-admin"
    admin = await create(bootstrap, topic, 3, {"retention.ms": "86400000"})
    assert only_error(await admin.create_topics([NewTopic(topic, 1, 1)])) == "TopicAlreadyExistsError"
    wrong = NewTopic("aio-wrong", 1, 1, topic_configs={"retention.ms": "soon"})
    assert only_error(await admin.create_topics([wrong])) == "InvalidConfigurationError"
    assert only_error(await admin.create_topics([NewTopic("aio/wrong", 1, 1)])) == "InvalidTopicError"
    assert only_error(await admin.delete_topics(["aio-absent"])) == "UnknownTopicOrPartitionError"
    await admin.create_partitions({topic: NewPartitions(5)})

    async def five():
        return len((await admin.describe_topics([topic]))[0]["partitions"]) == 5

    await eventually("5 partitions", five)
    try:
        await admin.create_partitions({topic: NewPartitions(2)})
        raise AssertionError("fewer partitions were accepted")
    except InvalidPartitionsError:
        pass

    async def config(key):
        response = (await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))[0]
        return next(entry[1] for entry in response.resources[0][4] if entry[0] == key)

    assert (await config("retention.ms"), await config("cleanup.policy")) == ("86400000", "delete")
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7200000"})])

    async def changed():
        return await config("retention.ms") == "7200000"

    await eventually("a changed config", changed)

    await (await create(bootstrap, "aio-cut", 1)).close()
    producer = await producer_of(bootstrap)
    await send_all(producer, "aio-cut", [(b"k", b"%d" % i, [], NOW_MS) for i in range(10)], 0)
    cut = TopicPartition("aio-cut", 0)
    assert await admin.delete_records({cut: RecordsToDelete(before_offset=6)}) == {cut: 6}
    assert [r.value for r in await read_all(bootstrap, [cut], 4)] == [b"6", b"7", b"8", b"9"]
    assert only_error(await admin.delete_topics([topic])) == "NoError"

    async def gone():
        return topic not in await admin.list_topics()

    await eventually("topic gone", gone)
    await producer.stop()
    await admin.close()


async def produce(bootstrap, topic, first, end):
    producer = await producer_of(bootstrap, acks="all")
    for i in range(int(first), int(end)):
        await producer.send(topic, b"v%d" % i, b"v%d" % i)
    await producer.stop()


async def consume(bootstrap, topic, group, count):
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    for _ in range(int(count)):
        say("value", (await consumer.getone()).value.decode())
    await consumer.commit()
    await consumer.stop()


async def member(bootstrap, topic, group, strategy, instance, session_ms):
    assert strategy == "eager", "aiokafka knows no cooperative assignor"
    stop = Stop()

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked):
            if revoked:
                say("revoked", *sorted(p.partition for p in revoked))

        def on_partitions_assigned(self, assigned):
            say("assigned", *sorted(p.partition for p in assigned))

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", session_timeout_ms=int(session_ms),
        heartbeat_interval_ms=1000, group_instance_id=None if instance == "-" else instance,
    )
    consumer.subscribe([topic], listener=Listener())
    await consumer.start()
    while not stop.set:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                say("value", record.value.decode())
    await consumer.stop()
    say("closed")


async def lag(bootstrap, topic, group):
    """A group that has read 10 of 30 records, as its members and as admin calls see it."""
    admin = await create(bootstrap, topic, 1)
    await produce(bootstrap, topic, 0, 30)
    at = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    await consumer.getone()
    await consumer.commit({at: OffsetAndMetadata(10, "ten")})
    assert (await consumer.end_offsets([at]))[at] - await consumer.committed(at) == 20
    described = (await admin.describe_consumer_groups([group]))[0].groups[0]
    assert described[2] == "Stable" and len(described[5]) == 1, described
    await consumer.stop()
    assert await admin.list_consumer_group_offsets(group) == {at: OffsetAndMetadata(10, "ten")}
    assert (group, "consumer") in [tuple(g)[:2] for g in await admin.list_consumer_groups()]
    await admin.close()


if __name__ == "__main__":
    main({f.__name__: lambda *words, f=f: asyncio.run(f(*words)) for f in (data, spread, admin, produce, consume, member, lag)})
