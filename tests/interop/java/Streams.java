import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

/** A word count by Kafka Streams: a repartition topic, a changelog topic, an output topic. */
final class Streams {
    private static final String APPLICATION = "word-count";

    /** Adds the lines `first` to `end - 1`, and runs until the counts of all lines from 0 on have come out. */
    static void count(String bootstrap, String stateDirectory, int first, int end) throws Exception {
        try (Admin admin = Admin.create(Client.properties(bootstrap))) {
            if (first == 0) {
                Client.get(admin.createTopics(List.of(new NewTopic("lines", 2, (short) 1),
                    new NewTopic("counts", 2, (short) 1).configs(Map.of("cleanup.policy", "compact")))).all());
            }
            try (KafkaProducer<byte[], byte[]> producer = Client.producer(bootstrap)) {
                Client.send(producer, IntStream.range(first, end)
                    .mapToObj(i -> new ProducerRecord<>("lines", Client.bytes("" + i), Client.bytes("word" + i % 7 + " common"))).toList());
            }
            Map<String, Long> wanted = new TreeMap<>();
            IntStream.range(0, end).forEach(i -> {
                wanted.merge("word" + i % 7, 1L, Long::sum);
                wanted.merge("common", 1L, Long::sum);
            });
            try (KafkaStreams streams = start(bootstrap, stateDirectory)) {
                awaitCounts(bootstrap, wanted);
                if (first == 0) {
                    internalTopics(admin);
                }
                Client.check(streams.close(Duration.ofMillis(Client.LIMIT_MS)), "streams did not close");
            }
        }
    }

    private static KafkaStreams start(String bootstrap, String stateDirectory) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream("lines")
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.as("by-word"))
            .count(Materialized.as(Stores.inMemoryKeyValueStore("totals")))
            .toStream().to("counts", Produced.with(Serdes.String(), Serdes.Long()));
        Properties properties = Client.properties(bootstrap, StreamsConfig.APPLICATION_ID_CONFIG, APPLICATION, StreamsConfig.STATE_DIR_CONFIG, stateDirectory,
            StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE, StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, "500",
            "repartition.purge.interval.ms", "500", "auto.offset.reset", "earliest",
            StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.String().getClass().getName(),
            StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.String().getClass().getName());
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        streams.start();
        return streams;
    }

    /** Reads the output topic until the last value of each word is the wanted one. */
    private static void awaitCounts(String bootstrap, Map<String, Long> wanted) {
        Map<String, Long> seen = new TreeMap<>();
        List<TopicPartition> partitions = List.of(new TopicPartition("counts", 0), new TopicPartition("counts", 1));
        try (KafkaConsumer<byte[], byte[]> consumer = Client.consumer(bootstrap)) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long deadline = System.currentTimeMillis() + Client.LIMIT_MS;
            while (!seen.equals(wanted)) {
                Client.check(System.currentTimeMillis() < deadline, "counted %s, wanted %s", seen, wanted);
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    seen.put(Client.text(record.key()), java.nio.ByteBuffer.wrap(record.value()).getLong());
                }
            }
        }
    }

    /** The changelog is compacted, and what was read of the repartition topic is deleted. */
    private static void internalTopics(Admin admin) throws Exception {
        ConfigResource changelog = new ConfigResource(ConfigResource.Type.TOPIC, APPLICATION + "-totals-changelog");
        var config = Client.get(admin.describeConfigs(List.of(changelog)).all()).get(changelog);
        Client.check(config.get(TopicConfig.CLEANUP_POLICY_CONFIG).value().equals("compact"), "changelog: %s", config);
        Map<TopicPartition, OffsetSpec> earliest = new HashMap<>();
        for (int partition = 0; partition < 2; partition++) {
            earliest.put(new TopicPartition(APPLICATION + "-by-word-repartition", partition), OffsetSpec.earliest());
        }
        Admins.eventually("a purged repartition topic", () ->
            Client.get(admin.listOffsets(earliest).all()).values().stream().mapToLong(found -> found.offset()).sum() > 0);
    }
}
