import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.DescribeTopicsResult;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Apache Kafka's Java client: what it writes, reads and asks for. Called with BOOTSTRAP CASE ARGUMENTS...
 *
 * Compiled against the newest version and run with older ones too, so `data`, `admin`, `lag` and what groups need use only
 * calls that 2.8 has; `spread` needs 3.0.
 */
public final class Client {
    static final long LIMIT_MS = 240_000;
    /** The base of all explicit timestamps: recent, so that retention leaves the records alone. */
    static final long NOW_MS = System.currentTimeMillis() / 1000 * 1000 - 60_000;
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    /** Settings of the producer of each partition of `write`. */
    static final String[][] PRODUCERS = {
        {"acks", "all", "enable.idempotence", "true"}, {"acks", "1", "enable.idempotence", "false"}, {"acks", "0", "enable.idempotence", "false"},
    };

    public static void main(String[] words) throws Exception {
        String bootstrap = words[0];
        String[] arguments = Arrays.copyOfRange(words, 2, words.length);
        switch (words[1]) {
            case "create" -> create(bootstrap, arguments[0], Integer.parseInt(arguments[1]), Map.of()).close();
            case "data" -> verify(bootstrap, write(bootstrap));
            case "write" -> System.out.println(write(bootstrap));
            case "verify" -> verify(bootstrap, Long.parseLong(arguments[0]));
            case "recoded" -> recoded(bootstrap);
            case "spread" -> spread(bootstrap);
            case "admin" -> Admins.admin(bootstrap);
            case "lag" -> Admins.lag(bootstrap, arguments[0], arguments[1]);
            case "produce" -> produce(bootstrap, arguments[0], Integer.parseInt(arguments[1]), Integer.parseInt(arguments[2]));
            case "consume" -> Members.consume(bootstrap, arguments[0], arguments[1], Integer.parseInt(arguments[2]));
            case "streams" -> Streams.count(bootstrap, arguments[0], Integer.parseInt(arguments[1]), Integer.parseInt(arguments[2]));
            case "member" -> Members.member(bootstrap, arguments);
            default -> throw new IllegalArgumentException(words[1]);
        }
    }

    static void check(boolean holds, String what, Object... values) {
        if (!holds) {
            throw new AssertionError(String.format(what, values));
        }
    }

    static <T> T get(Future<T> future) throws Exception {
        return future.get(LIMIT_MS, TimeUnit.MILLISECONDS);
    }

    /** What a call failed with; null when it went through. */
    static Class<?> failure(Future<?> future) throws Exception {
        try {
            get(future);
            return null;
        } catch (ExecutionException failed) {
            return failed.getCause().getClass();
        }
    }

    static Properties properties(String bootstrap, String... pairs) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < pairs.length; i += 2) {
            properties.put(pairs[i], pairs[i + 1]);
        }
        return properties;
    }

    static Admin create(String bootstrap, String topic, int partitions, Map<String, String> configs) throws Exception {
        Admin admin = Admin.create(properties(bootstrap));
        get(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all());
        // Apache Kafka may answer before the leaders serve, and even before it tells of the topic, and then takes the second
        // batch of an idempotent producer while it refuses the first, which fails for ever after. Asking for offsets waits for
        // the leaders, once the topic is told of.
        var ends = IntStream.range(0, partitions).boxed().collect(Collectors.toMap(p -> new TopicPartition(topic, p), p -> OffsetSpec.latest()));
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(LIMIT_MS);
        Class<?> failed = failure(admin.listOffsets(ends).all());
        while (failed == UnknownTopicOrPartitionException.class && System.nanoTime() < deadline) {
            Thread.sleep(50);
            failed = failure(admin.listOffsets(ends).all());
        }
        check(failed == null, "offsets of %s: %s", topic, failed);
        return admin;
    }

    /** The call that all versions have got another name in 3.1, and lost the old one in 4.0. */
    @SuppressWarnings("unchecked")
    static TopicDescription describe(Admin admin, String topic) throws Exception {
        DescribeTopicsResult result = admin.describeTopics(List.of(topic));
        boolean renamed = Arrays.stream(DescribeTopicsResult.class.getMethods()).anyMatch(method -> method.getName().equals("allTopicNames"));
        Object all = DescribeTopicsResult.class.getMethod(renamed ? "allTopicNames" : "all").invoke(result);
        return get((Future<Map<String, TopicDescription>>) all).get(topic);
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, String... pairs) {
        return new KafkaProducer<>(properties(bootstrap, pairs), new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, String... pairs) {
        return new KafkaConsumer<>(properties(bootstrap, pairs), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** Null keys and values, empty ones, headers, and a record of 1 MB. */
    static List<ProducerRecord<byte[], byte[]>> sample(String topic, int partition, String codec, long baseMs) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < 60; i++) {
            byte[] key = i % 7 == 0 ? null : bytes("key-" + i);
            byte[] value = i % 11 == 5 ? null : bytes(i % 11 == 6 ? "" : (codec + " value " + i).repeat(i % 5 + 1));
            List<Header> headers = i % 3 != 0 ? List.of() : List.of(new RecordHeader("source", bytes("interop")),
                new RecordHeader("n\u00e4me", new byte[] {0, -1}), new RecordHeader("source", null));
            records.add(new ProducerRecord<>(topic, partition, baseMs + i, key, value, headers));
        }
        byte[] large = new byte[990_000];
        byte[] noise = new byte[500_000];
        new Random(7).nextBytes(noise);
        System.arraycopy(noise, 0, large, 0, noise.length);
        records.add(new ProducerRecord<>(topic, partition, baseMs + 1000, bytes("large"), large));
        return records;
    }

    /** Sends everything; the offsets that the broker gave, -1 where it was not asked to answer. */
    static List<Long> send(KafkaProducer<byte[], byte[]> producer, List<ProducerRecord<byte[], byte[]>> records) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (ProducerRecord<byte[], byte[]> record : records) {
            sent.add(producer.send(record));
        }
        List<Long> offsets = new ArrayList<>();
        for (Future<RecordMetadata> future : sent) {
            RecordMetadata metadata = get(future);
            offsets.add(metadata.hasOffset() ? metadata.offset() : -1);
        }
        return offsets;
    }

    /** All records of these partitions from their beginning; exactly `count` are expected. */
    static List<ConsumerRecord<byte[], byte[]>> read(String bootstrap, Collection<TopicPartition> partitions, int count) {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, "enable.auto.commit", "false")) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long deadline = System.currentTimeMillis() + LIMIT_MS;
            while (found.size() < count) {
                check(System.currentTimeMillis() < deadline, "%d of %d records read", found.size(), count);
                consumer.poll(Duration.ofSeconds(1)).forEach(found::add);
            }
        }
        check(found.size() == count, "%d records read, %d written", found.size(), count);
        return found;
    }

    /** Writes the sample in every codec and by every kind of producer; returns the base of its timestamps. */
    static long write(String bootstrap) throws Exception {
        for (String codec : CODECS) {
            String topic = "java-" + codec;
            create(bootstrap, topic, PRODUCERS.length, Map.of()).close();
            for (int partition = 0; partition < PRODUCERS.length; partition++) {
                String[] pairs = Arrays.copyOf(PRODUCERS[partition], 6);
                pairs[4] = "compression.type";
                pairs[5] = codec;
                try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, pairs)) {
                    List<Long> offsets = send(producer, sample(topic, partition, codec, NOW_MS));
                    for (int i = 0; i < offsets.size(); i++) {
                        check(offsets.get(i) == (partition == 2 ? -1 : i), "%s: record %d got offset %d", codec, i, offsets.get(i));
                    }
                }
            }
        }
        return NOW_MS;
    }

    /** Reads back what `write` wrote. */
    static void verify(String bootstrap, long baseMs) {
        for (String codec : CODECS) {
            String topic = "java-" + codec;
            List<TopicPartition> partitions = IntStream.range(0, PRODUCERS.length).mapToObj(p -> new TopicPartition(topic, p)).toList();
            verify(bootstrap, partitions, codec, baseMs);
        }
    }

    /** Each of these partitions of one topic holds the sample. */
    static void verify(String bootstrap, List<TopicPartition> partitions, String codec, long baseMs) {
        String topic = partitions.get(0).topic();
        List<ConsumerRecord<byte[], byte[]>> found = read(bootstrap, partitions, partitions.size() * sample(topic, 0, codec, baseMs).size());
        for (int partition = 0; partition < partitions.size(); partition++) {
            List<ProducerRecord<byte[], byte[]>> wanted = sample(topic, partition, codec, baseMs);
            int next = 0;
            for (ConsumerRecord<byte[], byte[]> record : found) {
                if (record.partition() == partition) {
                    ProducerRecord<byte[], byte[]> want = wanted.get(next);
                    check(record.offset() == next, "%s: offset %d after %d", topic, record.offset(), next);
                    check(Arrays.equals(record.key(), want.key()), "%s: record %d: key", topic, next);
                    check(Arrays.equals(record.value(), want.value()), "%s: record %d: value", topic, next);
                    check(record.headers().equals(want.headers()), "%s: record %d: headers %s", topic, next, record.headers());
                    check(record.timestamp() == want.timestamp(), "%s: record %d: timestamp", topic, next);
                    next++;
                }
            }
            check(next == wanted.size(), "%s: partition %d holds %d records", topic, partition, next);
        }
    }

    /** Topics of every compression.type take batches that came uncompressed and in gzip, and give them back the same. */
    static void recoded(String bootstrap) throws Exception {
        for (String type : List.of("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd")) {
            String topic = "java-into-" + type;
            create(bootstrap, topic, 2, Map.of("compression.type", type)).close();
            List<String> codecs = List.of("none", "gzip");
            for (int partition = 0; partition < 2; partition++) {
                try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, "compression.type", codecs.get(partition))) {
                    List<Long> offsets = send(producer, sample(topic, partition, "same", NOW_MS));
                    for (int i = 0; i < offsets.size(); i++) {
                        check(offsets.get(i) == i, "%s: record %d got offset %d", topic, i, offsets.get(i));
                    }
                }
            }
            verify(bootstrap, List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1)), "same", NOW_MS);
        }
    }

    static void spread(String bootstrap) throws Exception {
        int count = 100;
        Admin admin = create(bootstrap, "java-spread", count, Map.of());
        TopicDescription described = describe(admin, "java-spread");
        Set<Integer> leaders = described.partitions().stream().map(p -> p.leader().id()).collect(Collectors.toCollection(TreeSet::new));
        Set<Integer> brokers = get(admin.describeCluster().nodes()).stream().map(n -> n.id()).collect(Collectors.toCollection(TreeSet::new));
        check(leaders.equals(brokers), "leaders %s of brokers %s", leaders, brokers);
        List<TopicPartition> partitions = IntStream.range(0, count).mapToObj(p -> new TopicPartition("java-spread", p)).toList();
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap)) {
            send(producer, partitions.stream().map(p -> new ProducerRecord<>(p.topic(), p.partition(), bytes("k"), bytes("value " + p.partition()))).toList());
        }
        for (ConsumerRecord<byte[], byte[]> record : read(bootstrap, partitions, count)) {
            check(text(record.value()).equals("value " + record.partition()), "partition %d holds %s", record.partition(), text(record.value()));
        }

        // Offsets by time: one record every 100 ms of record time.
        create(bootstrap, "java-times", 1, Map.of()).close();
        TopicPartition times = new TopicPartition("java-times", 0);
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap)) {
            send(producer, IntStream.range(0, 200).mapToObj(i -> new ProducerRecord<>("java-times", 0, NOW_MS + 100L * i, bytes("k"), bytes("" + i))).toList());
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap)) {
            long[][] wanted = {{-NOW_MS, 0}, {0, 0}, {1, 1}, {4_950, 50}, {19_900, 199}};
            for (long[] pair : wanted) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(times, NOW_MS + pair[0])).get(times);
                check(found != null && found.offset() == pair[1] && found.timestamp() == NOW_MS + 100 * pair[1], "after %d ms: %s", pair[0], found);
            }
            check(consumer.offsetsForTimes(Map.of(times, NOW_MS + 20_000)).get(times) == null, "an offset after the last record");
            check(consumer.endOffsets(List.of(times)).get(times) == 200, "end offset");
        }
        var producers = get(admin.describeProducers(List.of(times)).partitionResult(times)).activeProducers();
        check(producers.size() == 1 && producers.get(0).lastSequence() == 199, "producers: %s", producers);
        var newest = get(admin.listOffsets(Map.of(times, OffsetSpec.maxTimestamp())).partitionResult(times));
        check(newest.offset() == 199 && newest.timestamp() == NOW_MS + 19_900, "max timestamp: %s", newest);
        admin.close();
    }

    static void produce(String bootstrap, String topic, int first, int end) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, "acks", "all")) {
            send(producer, IntStream.range(first, end).mapToObj(i -> new ProducerRecord<>(topic, bytes("v" + i), bytes("v" + i))).toList());
        }
    }
}
