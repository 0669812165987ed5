// The franz-go client; see ../README.md for the operations.
package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dlog/compat/common"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func show(r *kgo.Record) {
	var headers []common.Header
	for _, h := range r.Headers {
		headers = append(headers, common.Header{Key: h.Key, Value: h.Value})
	}
	common.Show(r.Partition, r.Offset, r.Timestamp, r.Key, r.Value, headers)
}

func client(opts ...kgo.Opt) *kgo.Client {
	limit := common.MaxBytes()
	opts = append([]kgo.Opt{kgo.SeedBrokers(common.O["bootstrap"]), kgo.ProducerBatchMaxBytes(int32(limit - 1000)), kgo.FetchMaxPartitionBytes(int32(limit)),
		kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)
	c, err := kgo.NewClient(opts...)
	common.Check(err)
	return c
}

func main() {
	operation := common.Operation()
	ctx := context.Background()
	switch operation {
	case "metadata":
		m, err := kadm.NewClient(client()).Metadata(ctx)
		common.Check(err)
		for _, b := range m.Brokers {
			common.Say("broker", fmt.Sprintf("%s:%d", b.Host, b.Port))
		}
		for _, t := range m.Topics {
			common.Say("topic", t.Topic, len(t.Partitions))
		}
	case "create":
		_, err := kadm.NewClient(client()).CreateTopic(ctx, int32(common.Number(common.O["partitions"])), 1, nil, common.O["topic"])
		common.Check(err)
	case "produce":
		produce(ctx)
	case "consume":
		consume(ctx)
	case "group":
		group()
	case "stream":
		stream()
	case "transform":
		transform()
	}
}

func produce(ctx context.Context) {
	codec := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}[common.O["codec"]]
	c := client(kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(20*time.Millisecond))
	common.Records(func(n int, r common.Record) {
		sent := &kgo.Record{Topic: common.O["topic"], Key: r.Key, Value: r.Value, Partition: r.Partition, Timestamp: r.Timestamp}
		for _, h := range r.Headers {
			sent.Headers = append(sent.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		c.Produce(ctx, sent, func(r *kgo.Record, err error) { common.Check(err); common.Say("ack", n, r.Offset) })
	})
	common.Check(c.Flush(ctx))
	c.Close()
}

func consume(ctx context.Context) {
	partition := int32(common.Number(common.O["partition"]))
	ends, err := kadm.NewClient(client()).ListEndOffsets(ctx, common.O["topic"])
	common.Check(err)
	end, _ := ends.Lookup(common.O["topic"], partition)
	start := kgo.NewOffset().AtStart()
	kind, place, _ := strings.Cut(common.O["start"], ":")
	if kind == "offset" {
		start = start.At(common.Number(place))
	} else if kind == "timestamp" {
		start = kgo.NewOffset().AfterMilli(common.Number(place))
	}
	// The last record may be a marker.
	c := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{common.O["topic"]: {partition: start}}), kgo.KeepControlRecords(), isolation())
	for last := int64(-1); last < end.Offset-1; {
		fetches := c.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			common.Check(e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				show(r)
			}
			last = r.Offset
		})
	}
	c.Close()
}

func isolation() kgo.Opt {
	if common.O["isolation"] == "read_committed" {
		return kgo.FetchIsolationLevel(kgo.ReadCommitted())
	}
	return kgo.FetchIsolationLevel(kgo.ReadUncommitted())
}

func group() {
	ctx := common.InputClosed()
	held := map[int32]bool{}
	var guard sync.Mutex
	change := func(hold bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			guard.Lock()
			defer guard.Unlock()
			for _, ps := range changed {
				for _, p := range ps {
					if hold {
						held[p] = true
					} else {
						delete(held, p)
					}
				}
			}
			common.Assigned(slices.Sorted(maps.Keys(held)))
		}
	}
	c := client(kgo.ConsumerGroup(common.O["group"]), kgo.ConsumeTopics(common.O["topic"]), kgo.DisableAutoCommit(), kgo.SessionTimeout(10*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond), kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)))
	for ctx.Err() == nil {
		fetches := c.PollFetches(ctx)
		fetches.EachRecord(show)
		if !fetches.Empty() {
			common.Check(c.CommitUncommittedOffsets(context.Background()))
		}
	}
	c.Close()
}

func stream() {
	ctx := common.InputClosed()
	c := client(kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(2000))
	common.Stream(ctx, func(value string, partition int32) {
		c.Produce(context.Background(), &kgo.Record{Topic: common.O["topic"], Value: []byte(value), Partition: partition}, func(_ *kgo.Record, err error) {
			if err == nil {
				common.Say("ack", value)
			}
		})
	})
	common.Check(c.Flush(context.Background()))
	c.Close()
}

// Ends with an error where this producer cannot go on; a new process takes its place.
func transform() {
	ctx := common.InputClosed()
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(common.O["bootstrap"]), kgo.TransactionalID(common.O["id"]), kgo.ConsumerGroup(common.O["group"]),
		kgo.ConsumeTopics(common.O["from"]), kgo.RequireStableFetchOffsets(), kgo.SessionTimeout(6*time.Second), kgo.TransactionTimeout(10*time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	common.Check(err)
	common.Say("ready")
	for round := 0; ctx.Err() == nil; round++ {
		waiting, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		fetches := s.PollRecords(waiting, 100)
		cancel()
		if fetches.NumRecords() == 0 {
			continue
		}
		common.Check(s.Begin())
		fetches.EachRecord(func(r *kgo.Record) {
			s.Produce(context.Background(), &kgo.Record{Topic: common.O["to"], Partition: r.Partition, Value: append([]byte("t:"), r.Value...)}, nil)
		})
		result := kgo.TryCommit
		if round%10 == 9 {
			result = kgo.TryAbort
		}
		_, err := s.End(context.Background(), result)
		common.Check(err)
	}
	s.Close()
}
