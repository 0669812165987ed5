// The image under the real Testcontainers module of Go: main IMAGE. Its Redpanda module waits for a schema registry, which there is not yet.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/testcontainers/testcontainers-go/modules/kafka"
	"github.com/twmb/franz-go/pkg/kgo"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A record there and back.
func serve(ctx context.Context, name string, ready time.Duration, addresses []string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(addresses...), kgo.AllowAutoTopicCreation(), kgo.ConsumeTopics("t"), kgo.DefaultProduceTopic("t"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	check(err)
	defer client.Close()
	check(client.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr())
	fetches := client.PollFetches(ctx)
	check(fetches.Err())
	if records := fetches.Records(); len(records) != 1 || string(records[0].Value) != "x" {
		check(fmt.Errorf("%s: got %v", name, records))
	}
	fmt.Printf("%-32s ready after %4.1f s  ok\n", name, ready.Seconds())
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	begin := time.Now()
	broker, err := kafka.Run(ctx, os.Args[1], kafka.WithClusterID("test"))
	check(err)
	defer broker.Terminate(ctx)
	ready := time.Since(begin)
	addresses, err := broker.Brokers(ctx)
	check(err)
	serve(ctx, "go kafka.Run", ready, addresses)
}
