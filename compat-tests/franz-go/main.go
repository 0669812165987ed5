// The franz-go client; see ../README.md for the operations.
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
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
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
	if v == nil {
		v = []byte{}
	}
	return v
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	check(err)
	return n
}

func show(r *kgo.Record) {
	var headers []string
	for _, h := range r.Headers {
		headers = append(headers, h.Key+":"+enc(h.Value))
	}
	say("rec", r.Partition, r.Offset, r.Timestamp.UnixMilli(), enc(r.Key), enc(r.Value), strings.Join(headers, ","))
}

func client(opts ...kgo.Opt) *kgo.Client {
	limit := int64(1 << 20)
	if s, ok := o["max_bytes"]; ok {
		limit = number(s)
	}
	opts = append([]kgo.Opt{kgo.SeedBrokers(o["bootstrap"]), kgo.ProducerBatchMaxBytes(int32(limit - 1000)), kgo.FetchMaxPartitionBytes(int32(limit)),
		kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)
	c, err := kgo.NewClient(opts...)
	check(err)
	return c
}

func inputClosed() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { io.Copy(io.Discard, os.Stdin); cancel() }()
	return ctx
}

func main() {
	for _, w := range os.Args[2:] {
		k, v, _ := strings.Cut(w, "=")
		o[k] = v
	}
	ctx := context.Background()
	switch os.Args[1] {
	case "metadata":
		m, err := kadm.NewClient(client()).Metadata(ctx)
		check(err)
		for _, b := range m.Brokers {
			say("broker", fmt.Sprintf("%s:%d", b.Host, b.Port))
		}
		for _, t := range m.Topics {
			say("topic", t.Topic, len(t.Partitions))
		}
	case "create":
		_, err := kadm.NewClient(client()).CreateTopic(ctx, int32(number(o["partitions"])), 1, nil, o["topic"])
		check(err)
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
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}[o["codec"]]
	c := client(kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(20*time.Millisecond))
	file, err := os.Open(o["file"])
	check(err)
	lines := bufio.NewReader(file)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		check(err)
		w := strings.Split(strings.TrimRight(line, "\n"), "\t")
		r := &kgo.Record{Topic: o["topic"], Key: dec(w[0]), Value: dec(w[1]), Partition: int32(number(w[3]))}
		for _, h := range strings.Split(w[2], ",") {
			if name, value, ok := strings.Cut(h, ":"); ok {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: dec(value)})
			}
		}
		if t := number(w[4]); t != 0 {
			r.Timestamp = time.UnixMilli(t)
		}
		c.Produce(ctx, r, func(r *kgo.Record, err error) { check(err); say("ack", n, r.Offset) })
	}
	check(c.Flush(ctx))
	c.Close()
}

func consume(ctx context.Context) {
	partition := int32(number(o["partition"]))
	ends, err := kadm.NewClient(client()).ListEndOffsets(ctx, o["topic"])
	check(err)
	end, _ := ends.Lookup(o["topic"], partition)
	start := kgo.NewOffset().AtStart()
	kind, place, _ := strings.Cut(o["start"], ":")
	if kind == "offset" {
		start = start.At(number(place))
	} else if kind == "timestamp" {
		start = kgo.NewOffset().AfterMilli(number(place))
	}
	// The last record may be a marker.
	c := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{o["topic"]: {partition: start}}), kgo.KeepControlRecords(), isolation())
	for last := int64(-1); last < end.Offset-1; {
		fetches := c.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			check(e.Err)
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
	if o["isolation"] == "read_committed" {
		return kgo.FetchIsolationLevel(kgo.ReadCommitted())
	}
	return kgo.FetchIsolationLevel(kgo.ReadUncommitted())
}

func group() {
	ctx := inputClosed()
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
			var all []int
			for p := range held {
				all = append(all, int(p))
			}
			sort.Ints(all)
			say("assigned", strings.Trim(strings.ReplaceAll(fmt.Sprint(all), " ", ","), "[]"))
		}
	}
	c := client(kgo.ConsumerGroup(o["group"]), kgo.ConsumeTopics(o["topic"]), kgo.DisableAutoCommit(), kgo.SessionTimeout(10*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond), kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)))
	for ctx.Err() == nil {
		fetches := c.PollFetches(ctx)
		fetches.EachRecord(show)
		if !fetches.Empty() {
			check(c.CommitUncommittedOffsets(context.Background()))
		}
	}
	c.Close()
}

func stream() {
	ctx := inputClosed()
	c := client(kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(2000))
	rate, partitions, begin := 1e9, 1, time.Now()
	if s, ok := o["rate"]; ok {
		rate, partitions = float64(number(s)), int(number(o["partitions"]))
	}
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprintf("s%d", n)
		for float64(n) > time.Since(begin).Seconds()*rate && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		c.Produce(context.Background(), &kgo.Record{Topic: o["topic"], Value: []byte(value), Partition: int32(n % partitions)}, func(_ *kgo.Record, err error) {
			if err == nil {
				say("ack", value)
			}
		})
	}
	check(c.Flush(context.Background()))
	c.Close()
}

// Ends with an error where this producer cannot go on; a new process takes its place.
func transform() {
	ctx := inputClosed()
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(o["bootstrap"]), kgo.TransactionalID(o["id"]), kgo.ConsumerGroup(o["group"]),
		kgo.ConsumeTopics(o["from"]), kgo.RequireStableFetchOffsets(), kgo.SessionTimeout(6*time.Second), kgo.TransactionTimeout(10*time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	check(err)
	say("ready")
	for round := 0; ctx.Err() == nil; round++ {
		waiting, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		fetches := s.PollRecords(waiting, 100)
		cancel()
		if fetches.NumRecords() == 0 {
			continue
		}
		check(s.Begin())
		fetches.EachRecord(func(r *kgo.Record) {
			s.Produce(context.Background(), &kgo.Record{Topic: o["to"], Partition: r.Partition, Value: append([]byte("t:"), r.Value...)}, nil)
		})
		result := kgo.TryCommit
		if round%10 == 9 {
			result = kgo.TryAbort
		}
		_, err := s.End(context.Background(), result)
		check(err)
	}
	s.Close()
}
