// franz-go: what it writes, reads and asks for. Called as `franz BOOTSTRAP CASE ARGUMENTS...`.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const limit = 4 * time.Minute

// The base of all explicit timestamps: recent, so that retention leaves the records alone.
var nowMs = time.Now().Truncate(time.Second).UnixMilli() - 60_000

var codecs = []struct {
	name  string
	codec kgo.CompressionCodec
}{
	{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()},
	{"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()},
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	bootstrap, name, arguments := os.Args[1], os.Args[2], os.Args[3:]
	cases := map[string]func(context.Context, string, []string){
		"data": data, "spread": spread, "admin": admin,
		"produce": produce, "consume": consume, "member": member, "lag": lag, "many": many,
	}
	cases[name](ctx, bootstrap, arguments)
}

func check(ok bool, format string, arguments ...any) {
	if !ok {
		panic(fmt.Sprintf(format, arguments...))
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func number(text string) int { return must(strconv.Atoi(text)) }

func client(bootstrap string, options ...kgo.Opt) *kgo.Client {
	return must(kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap))...))
}

func create(ctx context.Context, bootstrap, topic string, partitions int32, configs map[string]*string) *kadm.Client {
	admin := kadm.NewClient(client(bootstrap))
	must(admin.CreateTopic(ctx, partitions, 1, configs, topic))
	return admin
}

// sample holds null keys and values, empty ones, headers, and a record of 1 MB.
func sample(codec string) []*kgo.Record {
	var records []*kgo.Record
	for i := range 60 {
		record := &kgo.Record{Timestamp: time.UnixMilli(nowMs + int64(i))}
		if i%7 != 0 {
			record.Key = fmt.Appendf(nil, "key-%d", i)
		}
		switch i % 11 {
		case 5:
		case 6:
			record.Value = []byte{}
		default:
			record.Value = bytes.Repeat(fmt.Appendf(nil, "%s value %d ", codec, i), i%5+1)
		}
		if i%3 == 0 {
			record.Headers = []kgo.RecordHeader{{Key: "source", Value: []byte("interop")}, {Key: "näme", Value: []byte{0, 255}}, {Key: "source", Value: []byte{}}}
		}
		records = append(records, record)
	}
	large := make([]byte, 990_000)
	rand.New(rand.NewSource(7)).Read(large[:500_000])
	return append(records, &kgo.Record{Key: []byte("large"), Value: large, Timestamp: time.UnixMilli(nowMs + 1000)})
}

func same(got, wanted *kgo.Record) bool {
	if len(got.Headers) != len(wanted.Headers) {
		return false
	}
	for i, header := range got.Headers {
		if header.Key != wanted.Headers[i].Key || !bytes.Equal(header.Value, wanted.Headers[i].Value) {
			return false
		}
	}
	return (got.Key == nil) == (wanted.Key == nil) && bytes.Equal(got.Key, wanted.Key) &&
		(got.Value == nil) == (wanted.Value == nil) && bytes.Equal(got.Value, wanted.Value) &&
		got.Timestamp.Equal(wanted.Timestamp)
}

func send(ctx context.Context, producer *kgo.Client, topic string, partition int32, records []*kgo.Record) {
	for _, record := range records {
		record.Topic, record.Partition = topic, partition
	}
	if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		panic(err)
	}
}

// read returns the records of each partition from its beginning, and expects exactly count of them.
func read(ctx context.Context, bootstrap string, count int, topic string, partitions int32) map[int32][]*kgo.Record {
	offsets := map[int32]kgo.Offset{}
	for partition := range partitions {
		offsets[partition] = kgo.NewOffset().AtStart()
	}
	consumer := client(bootstrap, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))
	defer consumer.Close()
	found, total := map[int32][]*kgo.Record{}, 0
	for total < count {
		fetches := consumer.PollFetches(ctx)
		for _, err := range fetches.Errors() {
			panic(err.Err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			check(record.Offset == int64(len(found[record.Partition])), "offset %d after %d records", record.Offset, len(found[record.Partition]))
			found[record.Partition] = append(found[record.Partition], record)
			total++
		})
	}
	check(total == count, "%d records read, %d written", total, count)
	return found
}

func data(ctx context.Context, bootstrap string, _ []string) {
	acks := [][]kgo.Opt{
		{kgo.RequiredAcks(kgo.AllISRAcks())}, // idempotent
		{kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
		{kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()},
	}
	for _, codec := range codecs {
		topic := "franz-" + codec.name
		create(ctx, bootstrap, topic, int32(len(acks)), nil)
		for partition, options := range acks {
			producer := client(bootstrap, append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec.codec))...)
			send(ctx, producer, topic, int32(partition), sample(codec.name))
			producer.Close()
		}
		wanted := sample(codec.name)
		for partition, records := range read(ctx, bootstrap, len(acks)*len(wanted), topic, int32(len(acks))) {
			check(len(records) == len(wanted), "%s: partition %d has %d records", codec.name, partition, len(records))
			for i, record := range records {
				check(same(record, wanted[i]), "%s: partition %d: record %d differs", codec.name, partition, i)
			}
		}
	}
}

func spread(ctx context.Context, bootstrap string, _ []string) {
	const count = 100
	admin := create(ctx, bootstrap, "franz-spread", count, nil)
	metadata := must(admin.Metadata(ctx, "franz-spread"))
	leaders := map[int32]bool{}
	for _, partition := range metadata.Topics["franz-spread"].Partitions {
		leaders[partition.Leader] = true
	}
	check(len(leaders) == len(metadata.Brokers), "leaders on %v of brokers %v", leaders, metadata.Brokers.NodeIDs())
	producer := client(bootstrap, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var records []*kgo.Record
	for partition := range int32(count) {
		records = append(records, &kgo.Record{Topic: "franz-spread", Partition: partition, Value: fmt.Appendf(nil, "value %d", partition)})
	}
	if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		panic(err)
	}
	for partition, found := range read(ctx, bootstrap, count, "franz-spread", count) {
		check(string(found[0].Value) == fmt.Sprintf("value %d", partition), "partition %d holds %q", partition, found[0].Value)
	}
	ends := must(admin.ListEndOffsets(ctx, "franz-spread"))
	check(len(ends.Offsets()["franz-spread"]) == count, "%d end offsets", len(ends.Offsets()["franz-spread"]))
	ends.Each(func(end kadm.ListedOffset) { check(end.Err == nil && end.Offset == 1, "end offset %v", end) })

	// Offsets by time: one record every 100 ms of record time.
	create(ctx, bootstrap, "franz-times", 1, nil)
	records = nil
	for i := range int64(200) {
		records = append(records, &kgo.Record{Value: fmt.Append(nil, i), Timestamp: time.UnixMilli(nowMs + 100*i)})
	}
	send(ctx, producer, "franz-times", 0, records)
	for after, wanted := range map[int64]int64{0: 0, 1: 1, 4950: 50, 19_900: 199, 20_000: 200} {
		found := must(admin.ListOffsetsAfterMilli(ctx, nowMs+after, "franz-times"))
		listed, _ := found.Lookup("franz-times", 0)
		check(listed.Err == nil && listed.Offset == wanted, "after %d ms: %v, wanted %d", after, listed, wanted)
	}
	newest := must(admin.ListMaxTimestampOffsets(ctx, "franz-times"))
	listed, _ := newest.Lookup("franz-times", 0)
	check(listed.Offset == 199 && listed.Timestamp == nowMs+19_900, "max timestamp: %v", listed)
}

func text(value string) *string { return &value }

func admin(ctx context.Context, bootstrap string, _ []string) {
	const topic = "franz-admin"
	admin := create(ctx, bootstrap, topic, 3, map[string]*string{"retention.ms": text("86400000")})
	_, err := admin.CreateTopic(ctx, 1, 1, nil, topic)
	check(errors.Is(err, kerr.TopicAlreadyExists), "created twice: %v", err)
	_, err = admin.CreateTopic(ctx, 1, 1, map[string]*string{"segment.bytes": text("few")}, "franz-wrong")
	check(errors.Is(err, kerr.InvalidConfig), "wrong config: %v", err)
	_, err = admin.CreateTopic(ctx, 1, 1, map[string]*string{"no.such.key": text("1")}, "franz-wrong")
	check(errors.Is(err, kerr.InvalidConfig), "unknown config: %v", err)
	_, err = admin.CreateTopic(ctx, 1, 1, nil, "wrong name")
	check(errors.Is(err, kerr.InvalidTopicException), "wrong name: %v", err)
	_, err = admin.CreateTopic(ctx, 1, 30, nil, "franz-wrong")
	check(errors.Is(err, kerr.InvalidReplicationFactor), "30 replicas: %v", err)
	_, err = admin.DeleteTopic(ctx, "franz-absent")
	check(errors.Is(err, kerr.UnknownTopicOrPartition), "deleted an absent topic: %v", err)

	check(must(admin.CreatePartitions(ctx, 2, topic)).Error() == nil, "adding partitions")
	eventually(ctx, "5 partitions", func() bool { return len(must(admin.ListTopics(ctx, topic))[topic].Partitions) == 5 })

	value := func(key string) string {
		configs := must(must(admin.DescribeTopicConfigs(ctx, topic)).On(topic, nil))
		for _, config := range configs.Configs {
			if config.Key == key {
				return config.MaybeValue()
			}
		}
		return "absent"
	}
	check(value("retention.ms") == "86400000" && value("max.message.bytes") == "1048588", "configs: %s, %s", value("retention.ms"), value("max.message.bytes"))
	altered := must(admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: text("3600000")}}, topic))
	check(altered[0].Err == nil, "altering: %v", altered)
	eventually(ctx, "a changed config", func() bool { return value("retention.ms") == "3600000" })
	refused := must(admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: text("burn")}}, topic))
	check(errors.Is(refused[0].Err, kerr.InvalidConfig), "wrong policy: %v", refused)

	brokers := must(admin.ListBrokers(ctx))
	check(len(brokers) > 0, "no brokers")
	configs := must(admin.DescribeBrokerConfigs(ctx, brokers.NodeIDs()[0]))
	check(len(configs[0].Configs) > 50, "only %d broker configs", len(configs[0].Configs))

	create(ctx, bootstrap, "franz-cut", 1, nil)
	producer := client(bootstrap, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var records []*kgo.Record
	for i := range 10 {
		records = append(records, &kgo.Record{Value: fmt.Append(nil, i), Timestamp: time.UnixMilli(nowMs)})
	}
	send(ctx, producer, "franz-cut", 0, records)
	logs := must(admin.DescribeAllLogDirs(ctx, nil))
	size := int64(0)
	for _, dirs := range logs {
		dirs.EachPartition(func(partition kadm.DescribedLogDirPartition) {
			if partition.Topic == "franz-cut" {
				size += partition.Size
			}
		})
	}
	check(size > 0, "log dirs: %v", logs)
	deleted := must(admin.DeleteRecords(ctx, kadm.Offsets{"franz-cut": {0: {Topic: "franz-cut", Partition: 0, At: 6}}}))
	low, _ := deleted.Lookup("franz-cut", 0)
	check(low.Err == nil && low.LowWatermark == 6, "records deleted: %v", low)
	starts := must(admin.ListStartOffsets(ctx, "franz-cut"))
	start, _ := starts.Lookup("franz-cut", 0)
	check(start.Offset == 6, "start offset %v", start)

	must(admin.DeleteTopic(ctx, topic))
	eventually(ctx, "a topic that is gone", func() bool { return !must(admin.ListTopics(ctx)).Has(topic) })
}

func eventually(ctx context.Context, what string, holds func() bool) {
	for !holds() {
		select {
		case <-ctx.Done():
			panic("never: " + what)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
