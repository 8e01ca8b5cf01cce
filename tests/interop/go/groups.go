package main

import (
	"context"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func produce(ctx context.Context, bootstrap string, arguments []string) {
	producer := client(bootstrap, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(arguments[0]), kgo.UnknownTopicRetries(-1))
	defer producer.Close()
	var records []*kgo.Record
	for i := number(arguments[1]); i < number(arguments[2]); i++ {
		value := fmt.Appendf(nil, "v%d", i)
		records = append(records, &kgo.Record{Key: value, Value: value})
	}
	if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		panic(err)
	}
}

func consume(ctx context.Context, bootstrap string, arguments []string) {
	consumer := client(bootstrap, kgo.ConsumeTopics(arguments[0]), kgo.ConsumerGroup(arguments[1]), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for seen, count := 0, number(arguments[2]); seen < count; {
		fetches := consumer.PollRecords(ctx, count-seen)
		check(ctx.Err() == nil, "%d of %d records read", seen, count)
		fetches.EachRecord(func(record *kgo.Record) {
			fmt.Println("value", string(record.Value))
			seen++
		})
	}
	if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
		panic(err)
	}
	consumer.Close()
}

func member(_ context.Context, bootstrap string, arguments []string) {
	topic, group, strategy, instance := arguments[0], arguments[1], arguments[2], arguments[3]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var mutex sync.Mutex
	held := map[int32]bool{}
	tell := func(word string, partitions []int32) {
		slices.Sort(partitions)
		fmt.Println(word, strings.Trim(fmt.Sprint(partitions), "[]"))
	}
	tellHeld := func() {
		var partitions []int32
		for partition := range held {
			partitions = append(partitions, partition)
		}
		tell("assigned", partitions)
	}
	taken := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		mutex.Lock()
		defer mutex.Unlock()
		if len(lost[topic]) == 0 {
			return
		}
		tell("revoked", lost[topic])
		for _, partition := range lost[topic] {
			delete(held, partition)
		}
		tellHeld()
	}
	options := []kgo.Opt{
		kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(time.Duration(number(arguments[4])) * time.Millisecond), kgo.HeartbeatInterval(time.Second),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, gained map[string][]int32) {
			mutex.Lock()
			defer mutex.Unlock()
			for _, partition := range gained[topic] {
				held[partition] = true
			}
			tellHeld()
		}),
		kgo.OnPartitionsRevoked(taken), kgo.OnPartitionsLost(taken),
	}
	if strategy == "cooperative" {
		options = append(options, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	} else {
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	if instance != "-" {
		options = append(options, kgo.InstanceID(instance))
	}
	consumer := client(bootstrap, options...)
	for ctx.Err() == nil {
		consumer.PollFetches(ctx).EachRecord(func(record *kgo.Record) { fmt.Println("value", string(record.Value)) })
	}
	consumer.Close()
	fmt.Println("closed")
}

// lag: a group that has read 10 of 30 records: its lag, a reset, its deletion, all by admin calls.
func lag(ctx context.Context, bootstrap string, arguments []string) {
	topic, group := arguments[0], arguments[1]
	admin := create(ctx, bootstrap, topic, 1, nil)
	produce(ctx, bootstrap, []string{topic, "0", "30"})
	consumer := client(bootstrap, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit())
	for seen := 0; seen < 10; {
		fetches := consumer.PollRecords(ctx, 10-seen)
		check(ctx.Err() == nil, "nothing to read")
		seen += fetches.NumRecords()
	}
	if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
		panic(err)
	}
	lags := must(admin.Lag(ctx, group))[group]
	check(lags.Error() == nil && lags.State == "Stable" && len(lags.Members) == 1, "described: %v", lags)
	check(lags.Lag.Total() == 20, "lag %d", lags.Lag.Total())
	_, err := admin.DeleteGroup(ctx, group)
	check(err != nil, "deleted a group with members")
	consumer.Close()

	reset := kadm.Offsets{}
	reset.AddOffset(topic, 0, 25, -1)
	check(must(admin.CommitOffsets(ctx, group, reset)).Error() == nil, "resetting")
	found := must(admin.FetchOffsets(ctx, group))
	at, _ := found.Lookup(topic, 0)
	check(at.At == 25, "reset to %d", at.At)
	check(slices.Contains(must(admin.ListGroups(ctx)).Groups(), group), "the group is not listed")
	must(admin.DeleteGroup(ctx, group))
	check(!slices.Contains(must(admin.ListGroups(ctx)).Groups(), group), "the group is still listed")
}

// many: as many groups at once as asked for, each of two members that together read and commit the whole topic.
func many(ctx context.Context, bootstrap string, arguments []string) {
	topic, groups := arguments[0], number(arguments[1])
	const records = 50
	admin := create(ctx, bootstrap, topic, 4, nil)
	produce(ctx, bootstrap, []string{topic, "0", fmt.Sprint(records)})
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var members sync.WaitGroup
	for i := range groups {
		for range 2 {
			members.Add(1)
			go func() {
				defer members.Done()
				readAsMember(inner, bootstrap, topic, fmt.Sprintf("many-%d", i))
			}()
		}
	}
	for i := range groups {
		group := fmt.Sprintf("many-%d", i)
		eventually(ctx, group+" committed everything", func() bool {
			total := int64(0)
			offsets, err := admin.FetchOffsets(ctx, group)
			offsets.Each(func(offset kadm.OffsetResponse) { total += offset.At })
			check(total <= records, "%s committed %d of %d", group, total, records)
			return err == nil && total == records
		})
	}
	listed := must(admin.ListGroups(ctx)).Groups()
	for i := range groups {
		check(slices.Contains(listed, fmt.Sprintf("many-%d", i)), "many-%d is not listed", i)
	}
	cancel()
	members.Wait()
}

func readAsMember(ctx context.Context, bootstrap, topic, group string) {
	consumer := client(bootstrap, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer consumer.Close()
	for ctx.Err() == nil {
		poll, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		consumer.PollFetches(poll)
		cancel()
		// A commit that a rebalance refuses is made again after it, by whoever then reads the partition.
		_ = consumer.CommitUncommittedOffsets(ctx)
	}
}
