// The sarama client; see ../README.md for the operations.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

var o = map[string]string{}
var lock sync.Mutex

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func say(words ...any) {
	lock.Lock()
	defer lock.Unlock()
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = fmt.Sprint(w)
	}
	fmt.Println(strings.Join(parts, "\t"))
}

func enc(v []byte) string {
	if v == nil {
		return "-"
	}
	return "=" + base64.StdEncoding.EncodeToString(v)
}

func dec(s string) []byte {
	if s == "-" {
		return nil
	}
	v, err := base64.StdEncoding.DecodeString(s[1:])
	check(err)
	return append([]byte{}, v...)
}

// Bytes of a record; a missing one is null.
func encoder(s string) sarama.Encoder {
	if v := dec(s); v != nil {
		return sarama.ByteEncoder(v)
	}
	return nil
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	check(err)
	return n
}

func show(m *sarama.ConsumerMessage) {
	var headers []string
	for _, h := range m.Headers {
		headers = append(headers, string(h.Key)+":"+enc(h.Value))
	}
	say("rec", m.Partition, m.Offset, m.Timestamp.UnixMilli(), enc(m.Key), enc(m.Value), strings.Join(headers, ","))
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	limit := 1 << 20
	if s, ok := o["max_bytes"]; ok {
		limit = int(number(s))
	}
	c.Producer.MaxMessageBytes = limit - 1000
	c.Consumer.Fetch.Default = int32(limit)
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
	if o["isolation"] == "read_committed" {
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

func inputClosed() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { io.Copy(io.Discard, os.Stdin); cancel() }()
	return ctx
}

func client(c *sarama.Config) sarama.Client {
	opened, err := sarama.NewClient([]string{o["bootstrap"]}, c)
	check(err)
	return opened
}

func main() {
	for _, w := range os.Args[2:] {
		k, v, _ := strings.Cut(w, "=")
		o[k] = v
	}
	switch os.Args[1] {
	case "metadata":
		metadata()
	case "create":
		admin, err := sarama.NewClusterAdmin([]string{o["bootstrap"]}, config())
		check(err)
		check(admin.CreateTopic(o["topic"], &sarama.TopicDetail{NumPartitions: int32(number(o["partitions"])), ReplicationFactor: 1}, false))
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
		say("broker", b.Addr())
	}
	topics, err := c.Topics()
	check(err)
	for _, t := range topics {
		partitions, err := c.Partitions(t)
		check(err)
		say("topic", t, len(partitions))
	}
}

func produce() {
	c := idempotent()
	c.Producer.Compression = map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD}[o["codec"]]
	producer, err := sarama.NewAsyncProducer([]string{o["bootstrap"]}, c)
	check(err)
	file, err := os.Open(o["file"])
	check(err)
	done := make(chan bool)
	go func() {
		for {
			select {
			case m, open := <-producer.Successes():
				if !open {
					close(done)
					return
				}
				say("ack", m.Metadata, m.Offset)
			case failed := <-producer.Errors():
				if failed != nil {
					check(failed.Err)
				}
			}
		}
	}()
	lines := bufio.NewReader(file)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		check(err)
		w := strings.Split(strings.TrimRight(line, "\n"), "\t")
		m := &sarama.ProducerMessage{Topic: o["topic"], Key: encoder(w[0]), Value: encoder(w[1]), Partition: int32(number(w[3])), Metadata: n}
		for _, h := range strings.Split(w[2], ",") {
			if name, value, ok := strings.Cut(h, ":"); ok {
				m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(name), Value: dec(value)})
			}
		}
		if t := number(w[4]); t != 0 {
			m.Timestamp = time.UnixMilli(t)
		}
		producer.Input() <- m
	}
	producer.AsyncClose()
	<-done
}

func consume() {
	c := client(config())
	topic, partition := o["topic"], int32(number(o["partition"]))
	end, err := c.GetOffset(topic, partition, sarama.OffsetNewest)
	check(err)
	start, err := c.GetOffset(topic, partition, sarama.OffsetOldest)
	check(err)
	kind, place, _ := strings.Cut(o["start"], ":")
	if kind == "offset" {
		start = number(place)
	} else if kind == "timestamp" {
		start, err = c.GetOffset(topic, partition, number(place))
		check(err)
	}
	if start >= end {
		return
	}
	consumer, err := sarama.NewConsumerFromClient(c)
	check(err)
	reading, err := consumer.ConsumePartition(topic, partition, start)
	check(err)
	for last := start - 1; last < end-1; {
		// The last offsets may be markers, which sarama passes over without a word: then silence is the end.
		var silence <-chan time.Time
		if o["isolation"] == "read_committed" {
			silence = time.After(1500 * time.Millisecond)
		}
		select {
		case <-silence:
			return
		case m := <-reading.Messages():
			show(m)
			last = m.Offset
		case failed := <-reading.Errors():
			check(failed.Err)
		}
	}
}

// A member of the group; commits what it has printed.
type member struct{}

func (member) Setup(s sarama.ConsumerGroupSession) error {
	held := s.Claims()[o["topic"]]
	sort.Slice(held, func(a, b int) bool { return held[a] < held[b] })
	say("assigned", strings.Trim(strings.ReplaceAll(fmt.Sprint(held), " ", ","), "[]"))
	return nil
}

func (member) Cleanup(sarama.ConsumerGroupSession) error {
	say("assigned", "")
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
	ctx := inputClosed()
	g, err := sarama.NewConsumerGroup([]string{o["bootstrap"]}, o["group"], config())
	check(err)
	go func() {
		for failed := range g.Errors() {
			fmt.Fprintln(os.Stderr, failed)
		}
	}()
	for ctx.Err() == nil {
		if err := g.Consume(ctx, []string{o["topic"]}, member{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	check(g.Close())
}

func stream() {
	ctx := inputClosed()
	c := idempotent()
	c.Producer.Flush.Frequency = 5 * time.Millisecond
	producer, err := sarama.NewAsyncProducer([]string{o["bootstrap"]}, c)
	check(err)
	done := make(chan bool)
	go func() {
		for {
			select {
			case m, open := <-producer.Successes():
				if !open {
					close(done)
					return
				}
				say("ack", m.Metadata)
			case failed := <-producer.Errors():
				if failed != nil {
					fmt.Fprintln(os.Stderr, failed.Err)
				}
			}
		}
	}()
	rate, partitions, begin := 1e9, 1, time.Now()
	if s, ok := o["rate"]; ok {
		rate, partitions = float64(number(s)), int(number(o["partitions"]))
	}
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprintf("s%d", n)
		for float64(n) > time.Since(begin).Seconds()*rate && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		producer.Input() <- &sarama.ProducerMessage{Topic: o["topic"], Value: sarama.StringEncoder(value), Partition: int32(n % partitions), Metadata: value}
	}
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
	c.Producer.Transaction.ID = fmt.Sprintf("%s-%d", o["group"], claim.Partition())
	c.Producer.Transaction.Timeout = 10 * time.Second
	c.Producer.Transaction.Retry.Max = 1000
	c.Producer.Return.Successes = false
	producer, err := sarama.NewAsyncProducer([]string{o["bootstrap"]}, c)
	check(err)
	defer producer.AsyncClose()
	go func() {
		for failed := range producer.Errors() {
			fmt.Fprintln(os.Stderr, failed.Err)
		}
	}()
	for {
		batch := gather(s.Context(), claim)
		if batch == nil {
			return nil
		}
		if len(batch) == 0 {
			continue
		}
		check(producer.BeginTxn())
		for _, m := range batch {
			producer.Input() <- &sarama.ProducerMessage{Topic: o["to"], Partition: m.Partition, Value: sarama.ByteEncoder(append([]byte("t:"), m.Value...))}
		}
		check(producer.AddMessageToTxn(batch[len(batch)-1], o["group"], nil))
		if t.rounds.Add(1)%10 == 0 {
			check(producer.AbortTxn())
			return nil
		}
		if err := producer.CommitTxn(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			if producer.TxnStatus()&sarama.ProducerTxnFlagAbortableError == 0 {
				os.Exit(1)
			}
			check(producer.AbortTxn())
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
	ctx := inputClosed()
	c := config()
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	g, err := sarama.NewConsumerGroup([]string{o["bootstrap"]}, o["group"], c)
	check(err)
	go func() {
		for failed := range g.Errors() {
			fmt.Fprintln(os.Stderr, failed)
		}
	}()
	say("ready")
	worker := &transformer{}
	for ctx.Err() == nil {
		if err := g.Consume(ctx, []string{o["from"]}, worker); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	check(g.Close())
}
