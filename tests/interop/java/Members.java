import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;

/** Members of consumer groups, as the harness starts them. */
final class Members {
    static void consume(String bootstrap, String topic, String group, int count) {
        try (KafkaConsumer<byte[], byte[]> consumer = Client.consumer(bootstrap, "group.id", group, "auto.offset.reset", "earliest",
                "enable.auto.commit", "false", "max.poll.records", "1")) {
            consumer.subscribe(List.of(topic));
            for (int seen = 0; seen < count; ) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println("value " + Client.text(record.value()));
                    seen++;
                }
            }
            consumer.commitSync();
        }
    }

    static void member(String bootstrap, String[] arguments) throws Exception {
        String topic = arguments[0];
        String assignor = arguments[2].equals("cooperative") ? "CooperativeStickyAssignor" : "RangeAssignor";
        String[] pairs = {
            "group.id", arguments[1], "auto.offset.reset", "earliest", "session.timeout.ms", arguments[4], "heartbeat.interval.ms", "1000",
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor,
        };
        KafkaConsumer<byte[], byte[]> consumer;
        if (arguments[3].equals("-")) {
            consumer = Client.consumer(bootstrap, pairs);
        } else {
            String[] more = java.util.Arrays.copyOf(pairs, pairs.length + 2);
            more[pairs.length] = "group.instance.id";
            more[pairs.length + 1] = arguments[3];
            consumer = Client.consumer(bootstrap, more);
        }
        CountDownLatch closed = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                closed.await();
            } catch (InterruptedException ignored) {
                Thread.currentThread().interrupt();
            }
        }));
        TreeSet<Integer> held = new TreeSet<>();
        consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                partitions.forEach(partition -> held.add(partition.partition()));
                tell("assigned", held);
            }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                TreeSet<Integer> lost = partitions.stream().map(TopicPartition::partition).collect(Collectors.toCollection(TreeSet::new));
                held.removeAll(lost);
                tell("revoked", lost);
                tell("assigned", held);
            }
        });
        try {
            while (true) {
                consumer.poll(Duration.ofSeconds(1)).forEach(record -> System.out.println("value " + Client.text(record.value())));
            }
        } catch (WakeupException asked) {
            consumer.close();
            System.out.println("closed");
            System.out.flush();
            // By a signal a JVM would end with 143; leaving in order is what is asked for.
            Runtime.getRuntime().halt(0);
        }
    }

    private static void tell(String word, Collection<Integer> partitions) {
        System.out.println(word + " " + partitions.stream().map(String::valueOf).collect(Collectors.joining(" ")));
    }
}
