// The sarama client; see ../README.md for the operations.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"dlog/compat/common"

	"github.com/IBM/sarama"
)

// Bytes of a record; a missing one is null.
func encoder(v []byte) sarama.Encoder {
	if v == nil {
		return nil
	}
	return sarama.ByteEncoder(v)
}

func show(m *sarama.ConsumerMessage) {
	var headers []common.Header
	for _, h := range m.Headers {
		headers = append(headers, common.Header{Key: string(h.Key), Value: h.Value})
	}
	common.Show(m.Partition, m.Offset, m.Timestamp, m.Key, m.Value, headers)
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.MaxMessageBytes = common.MaxBytes() - 1000
	c.Consumer.Fetch.Default = int32(common.MaxBytes())
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Retry.Max = 1000
	c.Producer.Retry.Backoff = 50 * time.Millisecond
	c.Metadata.Retry.Max = 1000
	c.Metadata.Retry.Backoff = 50 * time.Millisecond
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Session.Timeout = 10 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	c.Consumer.Return.Errors = true
	// Its fetches and commits share a connection, on which a commit waits for the fetch before it.
	c.Consumer.MaxWaitTime = 20 * time.Millisecond
	if common.O["isolation"] == "read_committed" {
		c.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	return c
}

// An idempotent producer of sarama has one request in flight.
func idempotent() *sarama.Config {
	c := config()
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	return c
}

func client(c *sarama.Config) sarama.Client {
	opened, err := sarama.NewClient([]string{common.O["bootstrap"]}, c)
	common.Check(err)
	return opened
}

func main() {
	switch common.Operation() {
	case "metadata":
		metadata()
	case "create":
		admin, err := sarama.NewClusterAdmin([]string{common.O["bootstrap"]}, config())
		common.Check(err)
		common.Check(admin.CreateTopic(common.O["topic"], &sarama.TopicDetail{NumPartitions: int32(common.Number(common.O["partitions"])), ReplicationFactor: 1}, false))
	case "produce":
		produce()
	case "consume":
		consume()
	case "group":
		group()
	case "stream":
		stream()
	case "transform":
		transform()
	}
}

func metadata() {
	c := client(config())
	for _, b := range c.Brokers() {
		common.Say("broker", b.Addr())
	}
	topics, err := c.Topics()
	common.Check(err)
	for _, t := range topics {
		partitions, err := c.Partitions(t)
		common.Check(err)
		common.Say("topic", t, len(partitions))
	}
}

func produce() {
	c := idempotent()
	c.Producer.Compression = map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD}[common.O["codec"]]
	producer, err := sarama.NewAsyncProducer([]string{common.O["bootstrap"]}, c)
	common.Check(err)
	done := drain(producer, func(m *sarama.ProducerMessage) { common.Say("ack", m.Metadata, m.Offset) }, common.Check)
	common.Records(func(n int, r common.Record) {
		m := &sarama.ProducerMessage{Topic: common.O["topic"], Key: encoder(r.Key), Value: encoder(r.Value), Partition: r.Partition, Timestamp: r.Timestamp, Metadata: n}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
		}
		producer.Input() <- m
	})
	producer.AsyncClose()
	<-done
}

// Takes what a producer says, so that it goes on; the channel is closed when all of it is said.
func drain(producer sarama.AsyncProducer, acked func(*sarama.ProducerMessage), failed func(error)) chan bool {
	done := make(chan bool)
	go func() {
		for e := range producer.Errors() {
			failed(e.Err)
		}
	}()
	go func() {
		for m := range producer.Successes() {
			acked(m)
		}
		close(done)
	}()
	return done
}

func complain(err error) {
	fmt.Fprintln(os.Stderr, err)
}

func consume() {
	c := client(config())
	topic, partition := common.O["topic"], int32(common.Number(common.O["partition"]))
	end, err := c.GetOffset(topic, partition, sarama.OffsetNewest)
	common.Check(err)
	start, err := c.GetOffset(topic, partition, sarama.OffsetOldest)
	common.Check(err)
	kind, place, _ := strings.Cut(common.O["start"], ":")
	if kind == "offset" {
		start = common.Number(place)
	} else if kind == "timestamp" {
		start, err = c.GetOffset(topic, partition, common.Number(place))
		common.Check(err)
	}
	if start >= end {
		return
	}
	consumer, err := sarama.NewConsumerFromClient(c)
	common.Check(err)
	reading, err := consumer.ConsumePartition(topic, partition, start)
	common.Check(err)
	for last := start - 1; last < end-1; {
		// The last offsets may be markers, which sarama passes over without a word: then silence is the end.
		var silence <-chan time.Time
		if common.O["isolation"] == "read_committed" {
			silence = time.After(1500 * time.Millisecond)
		}
		select {
		case <-silence:
			return
		case m := <-reading.Messages():
			show(m)
			last = m.Offset
		case failed := <-reading.Errors():
			common.Check(failed.Err)
		}
	}
}

// A member of the group; commits what it has printed.
type member struct{}

func (member) Setup(s sarama.ConsumerGroupSession) error {
	held := s.Claims()[common.O["topic"]]
	slices.Sort(held)
	common.Assigned(held)
	return nil
}

func (member) Cleanup(sarama.ConsumerGroupSession) error {
	common.Assigned(nil)
	return nil
}

func (member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			show(message)
			s.MarkMessage(message, "")
			s.Commit()
		case <-s.Context().Done():
			return nil
		}
	}
}

func group() {
	ctx := common.InputClosed()
	g, err := sarama.NewConsumerGroup([]string{common.O["bootstrap"]}, common.O["group"], config())
	common.Check(err)
	go func() {
		for failed := range g.Errors() {
			complain(failed)
		}
	}()
	for ctx.Err() == nil {
		if err := g.Consume(ctx, []string{common.O["topic"]}, member{}); err != nil {
			complain(err)
		}
	}
	common.Check(g.Close())
}

func stream() {
	ctx := common.InputClosed()
	c := idempotent()
	c.Producer.Flush.Frequency = 5 * time.Millisecond
	producer, err := sarama.NewAsyncProducer([]string{common.O["bootstrap"]}, c)
	common.Check(err)
	done := drain(producer, func(m *sarama.ProducerMessage) { common.Say("ack", m.Metadata) }, complain)
	common.Stream(ctx, func(value string, partition int32) {
		producer.Input() <- &sarama.ProducerMessage{Topic: common.O["topic"], Value: sarama.StringEncoder(value), Partition: partition, Metadata: value}
	})
	producer.AsyncClose()
	<-done
}

// A member that transforms: each partition has a transactional id of its own, so that its new owner fences the old one (the offsets that sarama adds
// to a transaction carry no generation of the group).
type transformer struct{ rounds atomic.Int64 }

func (*transformer) Setup(sarama.ConsumerGroupSession) error { return nil }

func (*transformer) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// Ends the session after an abort, to begin again at what is committed; ends the process where the producer cannot go on, and a new one takes its place.
func (t *transformer) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	c := idempotent()
	c.Producer.Transaction.ID = fmt.Sprintf("%s-%d", common.O["group"], claim.Partition())
	c.Producer.Transaction.Timeout = 10 * time.Second
	c.Producer.Transaction.Retry.Max = 1000
	c.Producer.Return.Successes = false
	producer, err := sarama.NewAsyncProducer([]string{common.O["bootstrap"]}, c)
	common.Check(err)
	defer producer.AsyncClose()
	drain(producer, func(*sarama.ProducerMessage) {}, complain)
	for {
		batch := gather(s.Context(), claim)
		if batch == nil {
			return nil
		}
		if len(batch) == 0 {
			continue
		}
		common.Check(producer.BeginTxn())
		for _, m := range batch {
			producer.Input() <- &sarama.ProducerMessage{Topic: common.O["to"], Partition: m.Partition, Value: sarama.ByteEncoder(append([]byte("t:"), m.Value...))}
		}
		common.Check(producer.AddMessageToTxn(batch[len(batch)-1], common.O["group"], nil))
		if t.rounds.Add(1)%10 == 0 {
			common.Check(producer.AbortTxn())
			return nil
		}
		if err := producer.CommitTxn(); err != nil {
			complain(err)
			if producer.TxnStatus()&sarama.ProducerTxnFlagAbortableError == 0 {
				os.Exit(1)
			}
			common.Check(producer.AbortTxn())
			return nil
		}
	}
}

// Up to 100 records that come within 200 ms; nil when the session is over.
func gather(ctx context.Context, claim sarama.ConsumerGroupClaim) []*sarama.ConsumerMessage {
	batch, end := []*sarama.ConsumerMessage{}, time.After(200*time.Millisecond)
	for len(batch) < 100 {
		select {
		case m, open := <-claim.Messages():
			if !open {
				return nil
			}
			batch = append(batch, m)
		case <-end:
			return batch
		case <-ctx.Done():
			return nil
		}
	}
	return batch
}

func transform() {
	ctx := common.InputClosed()
	c := config()
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	g, err := sarama.NewConsumerGroup([]string{common.O["bootstrap"]}, common.O["group"], c)
	common.Check(err)
	go func() {
		for failed := range g.Errors() {
			complain(failed)
		}
	}()
	common.Say("ready")
	worker := &transformer{}
	for ctx.Err() == nil {
		if err := g.Consume(ctx, []string{common.O["from"]}, worker); err != nil {
			complain(err)
		}
	}
	common.Check(g.Close())
}
