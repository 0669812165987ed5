// Package common is what the drivers in Go share: options, the file of records, and how lines are printed; see ../README.md.
package common

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// O holds the key=value words of the command line.
var O = map[string]string{}

var saying sync.Mutex

// Operation reads the command line and returns its operation.
func Operation() string {
	for _, w := range os.Args[2:] {
		k, v, _ := strings.Cut(w, "=")
		O[k] = v
	}
	return os.Args[1]
}

// Check ends the driver where there is an error.
func Check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Say prints one whole line, also where several goroutines speak.
func Say(words ...any) {
	saying.Lock()
	defer saying.Unlock()
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = fmt.Sprint(w)
	}
	fmt.Println(strings.Join(parts, "\t"))
}

// Enc is how bytes are printed; nil is null.
func Enc(v []byte) string {
	if v == nil {
		return "-"
	}
	return "=" + base64.StdEncoding.EncodeToString(v)
}

// Dec is the other way round.
func Dec(s string) []byte {
	if s == "-" {
		return nil
	}
	v, err := base64.StdEncoding.DecodeString(s[1:])
	Check(err)
	return append([]byte{}, v...)
}

// Number reads a whole number.
func Number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	Check(err)
	return n
}

// MaxBytes is the option max_bytes, or 1 MiB.
func MaxBytes() int {
	if s, ok := O["max_bytes"]; ok {
		return int(Number(s))
	}
	return 1 << 20
}

// InputClosed is done once the runner has closed our input: finish.
func InputClosed() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { io.Copy(io.Discard, os.Stdin); cancel() }()
	return ctx
}

// Header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Record of the file; Timestamp is zero for none.
type Record struct {
	Key, Value []byte
	Headers    []Header
	Partition  int32
	Timestamp  time.Time
}

// Records calls each with the number and the record of every line of the option file.
func Records(each func(n int, r Record)) {
	file, err := os.Open(O["file"])
	Check(err)
	lines := bufio.NewReader(file)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return
		}
		Check(err)
		w := strings.Split(strings.TrimRight(line, "\n"), "\t")
		r := Record{Key: Dec(w[0]), Value: Dec(w[1]), Partition: int32(Number(w[3]))}
		for _, h := range strings.Split(w[2], ",") {
			if name, value, ok := strings.Cut(h, ":"); ok {
				r.Headers = append(r.Headers, Header{name, Dec(value)})
			}
		}
		if t := Number(w[4]); t != 0 {
			r.Timestamp = time.UnixMilli(t)
		}
		each(n, r)
	}
}

// Show prints a record that was read.
func Show(partition int32, offset int64, timestamp time.Time, key, value []byte, headers []Header) {
	var all []string
	for _, h := range headers {
		all = append(all, h.Key+":"+Enc(h.Value))
	}
	Say("rec", partition, offset, timestamp.UnixMilli(), Enc(key), Enc(value), strings.Join(all, ","))
}

// Stream calls send with s0, s1 ... and their partitions, at the wanted rate, until ctx is done.
func Stream(ctx context.Context, send func(value string, partition int32)) {
	rate, partitions, begin := 1e9, 1, time.Now()
	if s, ok := O["rate"]; ok {
		rate, partitions = float64(Number(s)), int(Number(O["partitions"]))
	}
	for n := 0; ctx.Err() == nil; n++ {
		for float64(n) > time.Since(begin).Seconds()*rate && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		send(fmt.Sprintf("s%d", n), int32(n%partitions))
	}
}

// Assigned prints the partitions that a member has.
func Assigned(partitions []int32) {
	words := make([]string, len(partitions))
	for i, p := range partitions {
		words[i] = fmt.Sprint(p)
	}
	Say("assigned", strings.Join(words, ","))
}
