package eval_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// cpu is how much of it the process has used, whatever else runs on the machine.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	noError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCatchUp is a watcher of everything that is a million revisions behind, with pages of different sizes: each key written once,
// in order or not, or few keys again and again. Values have 128 bytes. A page is one walk over all that it has to choose from.
func BenchmarkCatchUp(b *testing.B) {
	const behind = 1_000_000
	for _, load := range []struct {
		name string
		key  func(i int) []byte
	}{
		{"ascending", func(i int) []byte { return fmt.Appendf(nil, "key%013d", i) }},
		{"scattered", func(i int) []byte { return fmt.Appendf(nil, "key%013d", uint32(i)*2654435761) }},
		{"1000-keys", func(i int) []byte { return fmt.Appendf(nil, "key%013d", i%1000) }},
		{"one-key", func(int) []byte { return []byte("key") }},
	} {
		b.Run(load.name, func(b *testing.B) {
			e := openPebble(b)
			env := newEnv(base.KeyspaceDefault)
			const batch = 10_000
			for i := range behind / batch {
				cmds := make([]*kvpb.Command, batch)
				for j := range cmds {
					cmds[j] = command(&pb.PutRequest{Key: load.key(i*batch + j), Value: make([]byte, 128)}, 0)
				}
				applyAll(b, e, env, cmds)
			}
			for _, most := range []int{1 << 20, 4 << 20, 16 << 20, 64 << 20} {
				b.Run(fmt.Sprintf("page=%dMiB", most>>20), func(b *testing.B) {
					b.ReportAllocs()
					began := cpu(b)
					for b.Loop() {
						events, pages := 0, 0
						for req := (eval.ChangesRequest{From: 2, MostBytes: most}); req.From <= env.Counters.Revision; pages++ {
							page, err := eval.Changes(e, env, req)
							noError(b, err)
							events += len(page.Events)
							req.From = page.Next
						}
						if events != behind {
							b.Fatalf("%d events", events)
						}
						b.ReportMetric(float64(pages), "pages")
					}
					b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/float64(b.N)/behind, "cpu-ns/event")
				})
			}
		})
	}
}
