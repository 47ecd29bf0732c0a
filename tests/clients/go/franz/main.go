// franz-go as a worker.
package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tierproxy.test/clients/worker"
)

func main() {
	worker.Run(map[string]worker.Command{
		"about":  func(worker.Words) (any, error) { return worker.Version("github.com/twmb/franz-go"), nil },
		"read":   read,
		"group":  group,
		"times":  times,
		"bounds": bounds,
	})
}

func client(words worker.Words, more ...kgo.Opt) (*kgo.Client, error) {
	level := kgo.ReadUncommitted()
	if words.Committed {
		level = kgo.ReadCommitted()
	}
	return kgo.NewClient(append(more, kgo.SeedBrokers(words.Bootstrap), kgo.FetchIsolationLevel(level))...)
}

func read(words worker.Words) (any, error) {
	offsets := map[int32]kgo.Offset{}
	for partition := range words.Last {
		offsets[partition] = kgo.NewOffset().AtStart()
	}
	for partition, offset := range words.Starts {
		offsets[partition] = kgo.NewOffset().At(offset)
	}
	consumer, err := client(words, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{words.Topic: offsets}))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	reading := worker.NewReading(words.Last)
	for complete := false; !complete; {
		fetched := consumer.PollFetches(context.Background())
		if failed := fetched.Errors(); len(failed) > 0 {
			return nil, fmt.Errorf("partition %d: %w", failed[0].Partition, failed[0].Err)
		}
		fetched.EachRecord(func(record *kgo.Record) {
			complete = reading.Add(record.Partition, record.Offset, plain(record))
		})
	}
	return reading.Records, nil
}

func group(words worker.Words) (any, error) {
	ctx := context.Background()
	more := []kgo.Opt{
		kgo.ConsumerGroup(words.Group),
		kgo.ConsumeTopics(words.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.Balancers(kgo.RangeBalancer()),
	}
	if words.Protocol == "consumer" {
		more = append(more, kgo.ServerSideBalancer())
	}
	consumer, err := client(words, more...)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	records := []worker.Record{}
	for len(records) < words.Count {
		fetched := consumer.PollRecords(ctx, words.Count-len(records))
		if failed := fetched.Errors(); len(failed) > 0 {
			return nil, fmt.Errorf("partition %d: %w", failed[0].Partition, failed[0].Err)
		}
		fetched.EachRecord(func(record *kgo.Record) { records = append(records, plain(record)) })
		if err := consumer.CommitRecords(ctx, fetched.Records()...); err != nil {
			return nil, err
		}
	}
	return records, consumer.LeaveGroupContext(ctx)
}

func times(words worker.Words) (any, error) {
	consumer, err := client(words)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	found := map[string][]any{}
	for partition, asked := range words.Times {
		for _, time := range asked {
			listed, err := kadm.NewClient(consumer).ListOffsetsAfterMilli(context.Background(), time, words.Topic)
			if err != nil {
				return nil, err
			}
			answer, _ := listed.Lookup(words.Topic, partition)
			if answer.Err != nil {
				return nil, answer.Err
			}
			var pair any
			if answer.Timestamp >= 0 {
				pair = [2]int64{answer.Offset, answer.Timestamp}
			}
			found[worker.Key(partition)] = append(found[worker.Key(partition)], pair)
		}
	}
	return found, nil
}

func bounds(words worker.Words) (any, error) {
	consumer, err := client(words)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	admin, ctx := kadm.NewClient(consumer), context.Background()
	starts, err := admin.ListStartOffsets(ctx, words.Topic)
	if err != nil {
		return nil, err
	}
	ask := admin.ListEndOffsets
	if words.Committed {
		ask = admin.ListCommittedOffsets
	}
	ends, err := ask(ctx, words.Topic)
	if err != nil {
		return nil, err
	}
	found := map[string][2]int64{}
	for _, partition := range words.Partitions {
		start, _ := starts.Lookup(words.Topic, partition)
		end, _ := ends.Lookup(words.Topic, partition)
		found[worker.Key(partition)] = [2]int64{start.Offset, end.Offset}
	}
	return found, nil
}

func plain(record *kgo.Record) worker.Record {
	headers := []worker.Header{}
	for _, header := range record.Headers {
		headers = append(headers, worker.Header{header.Key, header.Value})
	}
	return worker.Record{
		record.Partition, record.Offset, record.Timestamp.UnixMilli(), record.Key, record.Value, headers,
	}
}
