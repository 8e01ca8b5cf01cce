import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ConsumerGroupState;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** The Java client's Admin: topics, partitions, configs, records, groups. */
final class Admins {
    static void admin(String bootstrap) throws Exception {
        String topic = "java-admin";
        Admin admin = Client.create(bootstrap, topic, 3, Map.of("retention.ms", "86400000", "segment.bytes", "1048576"));
        refused(admin, new NewTopic(topic, 1, (short) 1), TopicExistsException.class);
        refused(admin, new NewTopic("java wrong", 1, (short) 1), InvalidTopicException.class);
        refused(admin, new NewTopic("java-wrong", 1, (short) 9), InvalidReplicationFactorException.class);
        refused(admin, new NewTopic("java-wrong", 0, (short) 1), InvalidPartitionsException.class);
        refused(admin, new NewTopic("java-wrong", 1, (short) 1).configs(Map.of("segment.bytes", "-3")), InvalidConfigurationException.class);
        Client.get(admin.createTopics(List.of(new NewTopic("java-check", 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all());
        Client.check(!Client.get(admin.listTopics().names()).contains("java-check"), "a check created the topic");
        Client.check(Client.failure(admin.deleteTopics(List.of("java-absent")).all()) == UnknownTopicOrPartitionException.class, "deleted an absent topic");

        // Defaults: the broker's own partition count and replication factor.
        Client.get(admin.createTopics(List.of(new NewTopic("java-defaults", java.util.Optional.empty(), java.util.Optional.empty()))).all());
        Client.check(Client.describe(admin, "java-defaults").partitions().size() == 1, "default partitions");

        Client.get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
        eventually("5 partitions", () -> Client.describe(admin, topic).partitions().size() == 5);
        Client.check(Client.failure(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all()) == InvalidPartitionsException.class, "fewer partitions");
        configs(admin, topic);
        records(bootstrap, admin);

        Collection<Node> nodes = Client.get(admin.describeCluster().nodes());
        Client.check(!nodes.isEmpty() && !Client.get(admin.describeCluster().clusterId()).isEmpty() && Client.get(admin.describeCluster().controller()) != null, "cluster");
        Client.check(Client.get(admin.describeFeatures().featureMetadata()).finalizedFeatures().containsKey("metadata.version"), "no metadata.version");
        Client.check(Client.failure(admin.describeAcls(org.apache.kafka.common.acl.AclBindingFilter.ANY).values()) == SecurityDisabledException.class, "ACLs without an authorizer");
        var logs = Client.get(admin.describeLogDirs(nodes.stream().map(Node::id).toList()).allDescriptions());
        long size = logs.values().stream().flatMap(dirs -> dirs.values().stream()).flatMap(dir -> dir.replicaInfos().entrySet().stream())
            .filter(entry -> entry.getKey().topic().equals("java-cut")).mapToLong(entry -> entry.getValue().size()).sum();
        Client.check(size > 0, "log dirs: %s", logs);

        Client.get(admin.deleteTopics(List.of(topic)).all());
        eventually("a topic that is gone", () -> !Client.get(admin.listTopics().names()).contains(topic));
        admin.close();
    }

    private static void refused(Admin admin, NewTopic topic, Class<?> wanted) throws Exception {
        Class<?> got = Client.failure(admin.createTopics(List.of(topic)).all());
        Client.check(got == wanted, "creating %s: %s, wanted %s", topic, got, wanted);
    }

    private static void configs(Admin admin, String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Callable<Config> describe = () -> Client.get(admin.describeConfigs(List.of(resource)).all()).get(resource);
        Config config = describe.call();
        ConfigEntry retention = config.get("retention.ms");
        Client.check(retention.value().equals("86400000") && retention.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "%s", retention);
        ConfigEntry policy = config.get("cleanup.policy");
        Client.check(policy.value().equals("delete") && policy.source() == ConfigEntry.ConfigSource.DEFAULT_CONFIG, "%s", policy);
        Client.check(config.get("max.message.bytes").value().equals("1048588"), "%s", config.get("max.message.bytes"));

        Client.get(admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("segment.bytes", ""), AlterConfigOp.OpType.DELETE),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND)))).all());
        eventually("changed configs", () -> {
            Config now = describe.call();
            return now.get("retention.ms").value().equals("7200000") && now.get("segment.bytes").value().equals("1073741824")
                && Set.of(now.get("cleanup.policy").value().split(",")).equals(Set.of("compact", "delete"));
        });
        var wrong = admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "long"), AlterConfigOp.OpType.SET)))).all();
        Client.check(Client.failure(wrong) == InvalidConfigurationException.class, "a wrong value: %s", Client.failure(wrong));
        int node = Client.get(admin.describeCluster().nodes()).iterator().next().id();
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node));
        Config brokerConfig = Client.get(admin.describeConfigs(List.of(broker)).all()).get(broker);
        for (String key : List.of("log.retention.hours", "message.max.bytes", "num.partitions", "auto.create.topics.enable", "log.segment.bytes")) {
            Client.check(brokerConfig.get(key) != null, "the broker does not tell %s", key);
        }
    }

    private static void records(String bootstrap, Admin admin) throws Exception {
        TopicPartition cut = new TopicPartition("java-cut", 0);
        Client.create(bootstrap, "java-cut", 1, Map.of()).close();
        try (KafkaProducer<byte[], byte[]> producer = Client.producer(bootstrap)) {
            Client.send(producer, IntStream.range(0, 10).mapToObj(i -> new ProducerRecord<byte[], byte[]>("java-cut", 0, null, Client.bytes("" + i))).toList());
        }
        long low = Client.get(admin.deleteRecords(Map.of(cut, RecordsToDelete.beforeOffset(6))).lowWatermarks().get(cut)).lowWatermark();
        Client.check(low == 6, "low watermark %d", low);
        Client.check(Client.get(admin.listOffsets(Map.of(cut, OffsetSpec.earliest())).partitionResult(cut)).offset() == 6, "earliest");
        Client.check(Client.failure(admin.deleteRecords(Map.of(cut, RecordsToDelete.beforeOffset(99))).all()) == OffsetOutOfRangeException.class, "beyond the end");
    }

    /** A group that has read 10 of 30 records: its lag, a reset, its deletion, all by admin calls. */
    static void lag(String bootstrap, String topic, String group) throws Exception {
        Admin admin = Client.create(bootstrap, topic, 1, Map.of());
        Client.produce(bootstrap, topic, 0, 30);
        TopicPartition partition = new TopicPartition(topic, 0);
        Callable<OffsetAndMetadata> committed = () -> Client.get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(partition);
        try (KafkaConsumer<byte[], byte[]> consumer = Client.consumer(bootstrap, "group.id", group, "auto.offset.reset", "earliest", "enable.auto.commit", "false")) {
            consumer.subscribe(List.of(topic));
            List<Object> seen = new ArrayList<>();
            while (seen.isEmpty()) {
                consumer.poll(Duration.ofSeconds(1)).forEach(seen::add);
            }
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(10, "ten")));
            var described = Client.get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
            Client.check(described.state() == ConsumerGroupState.STABLE && described.members().size() == 1, "%s", described);
            Client.check(described.members().iterator().next().assignment().topicPartitions().equals(Set.of(partition)), "%s", described);
            Client.check(Client.failure(admin.deleteConsumerGroups(List.of(group)).all()) == GroupNotEmptyException.class, "deleted a group with members");
            Client.check(Client.failure(admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all()) == GroupSubscribedToTopicException.class, "deleted offsets in use");
        }
        Client.check(committed.call().offset() == 10 && committed.call().metadata().equals("ten"), "%s", committed.call());
        long end = Client.get(admin.listOffsets(Map.of(partition, OffsetSpec.latest())).partitionResult(partition)).offset();
        Client.check(end - committed.call().offset() == 20, "end offset %d", end);
        Client.get(admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(25))).all());
        Client.check(committed.call().offset() == 25, "%s", committed.call());
        Client.get(admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all());
        Client.check(committed.call() == null, "%s", committed.call());
        Client.get(admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(1))).all());
        Client.check(groups(admin).contains(group), "not listed: %s", groups(admin));
        Client.get(admin.deleteConsumerGroups(List.of(group)).all());
        Client.check(!groups(admin).contains(group), "still listed: %s", groups(admin));
        admin.close();
    }

    private static List<String> groups(Admin admin) throws Exception {
        return Client.get(admin.listConsumerGroups().all()).stream().map(listing -> listing.groupId()).toList();
    }

    static void eventually(String what, Callable<Boolean> holds) throws Exception {
        long deadline = System.currentTimeMillis() + Client.LIMIT_MS;
        while (!holds.call()) {
            Client.check(System.currentTimeMillis() < deadline, "never: %s", what);
            Thread.sleep(100);
        }
    }
}
