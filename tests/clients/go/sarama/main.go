// sarama as a worker.
package main

import (
	"context"
	"fmt"

	"github.com/IBM/sarama"

	"tierproxy.test/clients/worker"
)

func main() {
	worker.Run(map[string]worker.Command{
		"about":  func(worker.Words) (any, error) { return worker.Version("github.com/IBM/sarama"), nil },
		"read":   read,
		"group":  group,
		"times":  times,
		"bounds": bounds,
	})
}

func config(words worker.Words) *sarama.Config {
	settings := sarama.NewConfig()
	settings.Version = sarama.MaxVersion
	settings.Consumer.Return.Errors = true
	settings.Consumer.Offsets.Initial = sarama.OffsetOldest
	settings.Consumer.Offsets.AutoCommit.Enable = false
	if words.Committed {
		settings.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	return settings
}

func read(words worker.Words) (any, error) {
	consumer, err := sarama.NewConsumer([]string{words.Bootstrap}, config(words))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	messages := make(chan *sarama.ConsumerMessage)
	failed := make(chan error)
	done := make(chan struct{})
	defer close(done)
	for number := range words.Last {
		start, given := words.Starts[number]
		if !given {
			start = sarama.OffsetOldest
		}
		partition, err := consumer.ConsumePartition(words.Topic, number, start)
		if err != nil {
			return nil, err
		}
		defer partition.AsyncClose()
		go func() {
			for {
				select {
				case message := <-partition.Messages():
					select {
					case messages <- message:
					case <-done:
						return
					}
				case err := <-partition.Errors():
					select {
					case failed <- err:
					case <-done:
						return
					}
				case <-done:
					return
				}
			}
		}()
	}
	reading := worker.NewReading(words.Last)
	for {
		select {
		case message := <-messages:
			if reading.Add(message.Partition, message.Offset, plain(message)) {
				return reading.Records, nil
			}
		case err := <-failed:
			return nil, err
		}
	}
}

// member takes records in turn from all claims of one session until it has enough, then commits them.
type member struct {
	count   int
	records []worker.Record
	turn    chan struct{}
	enough  context.CancelFunc
}

func (m *member) Setup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) Cleanup(session sarama.ConsumerGroupSession) error {
	session.Commit()
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.turn <- struct{}{}
			if len(m.records) < m.count {
				m.records = append(m.records, plain(message))
				session.MarkMessage(message, "")
			}
			if len(m.records) == m.count {
				m.enough()
			}
			<-m.turn
		case <-session.Context().Done():
			return nil
		}
	}
}

func group(words worker.Words) (any, error) {
	if words.Protocol != "classic" {
		return nil, fmt.Errorf("sarama has no group protocol %q", words.Protocol)
	}
	consumer, err := sarama.NewConsumerGroup([]string{words.Bootstrap}, words.Group, config(words))
	if err != nil {
		return nil, err
	}
	ctx, enough := context.WithCancel(context.Background())
	defer enough()
	taking := &member{count: words.Count, turn: make(chan struct{}, 1), enough: enough}
	failed := make(chan error, 1)
	go func() {
		for err := range consumer.Errors() {
			select {
			case failed <- err:
			default:
			}
			enough()
		}
	}()
	for len(taking.records) < words.Count && ctx.Err() == nil {
		if err := consumer.Consume(ctx, []string{words.Topic}, taking); err != nil {
			return nil, err
		}
	}
	if err := consumer.Close(); err != nil {
		return nil, err
	}
	select {
	case err := <-failed:
		return nil, err
	default:
		return taking.records, nil
	}
}

func times(words worker.Words) (any, error) {
	client, err := sarama.NewClient([]string{words.Bootstrap}, config(words))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	found := map[string][]any{}
	for partition, asked := range words.Times {
		for _, time := range asked {
			offset, err := client.GetOffset(words.Topic, partition, time)
			if err != nil {
				return nil, err
			}
			var pair any
			if offset >= 0 {
				pair = [2]any{offset, nil} // it keeps the time to itself
			}
			found[worker.Key(partition)] = append(found[worker.Key(partition)], pair)
		}
	}
	return found, nil
}

func bounds(words worker.Words) (any, error) {
	client, err := sarama.NewClient([]string{words.Bootstrap}, config(words))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	found := map[string][2]int64{}
	for _, partition := range words.Partitions {
		start, err := client.GetOffset(words.Topic, partition, sarama.OffsetOldest)
		if err != nil {
			return nil, err
		}
		end, err := client.GetOffset(words.Topic, partition, sarama.OffsetNewest)
		if err != nil {
			return nil, err
		}
		found[worker.Key(partition)] = [2]int64{start, end}
	}
	return found, nil
}

func plain(message *sarama.ConsumerMessage) worker.Record {
	headers := []worker.Header{}
	for _, header := range message.Headers {
		headers = append(headers, worker.Header{string(header.Key), header.Value})
	}
	return worker.Record{
		message.Partition, message.Offset, message.Timestamp.UnixMilli(), message.Key, message.Value, headers,
	}
}
