package eval_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
)

// TestStories tells stories of commands and reads. Directives:
//
//	new [sharded] [start=KEY] [end=KEY] [leases=N,…]   an empty range
//	run [now=N] [events]                               commands in one pass, then the batch is committed
//	steps budget=N                                     the removal that follows a compaction, to its end
//	changes from=N [start=KEY] [end=KEY] [most=N] [cut] [prev]   all changes, page by page
//	dump                                               every version that is stored
func TestStories(t *testing.T) {
	for _, kind := range engineKinds {
		t.Run(kind.name, func(t *testing.T) {
			datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
				s := &story{e: kind.open(t), env: newEnv(base.KeyspaceDefault)}
				datadriven.RunTest(t, path, s.directive)
			})
		})
	}
}

type story struct {
	e   engine.Engine
	env *eval.Env
}

func (s *story) directive(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "new":
		return s.fresh(t, d)
	case "run":
		return s.run(t, d)
	case "steps":
		return s.steps(t, d)
	case "changes":
		return s.changes(t, d)
	case "dump":
		return s.dump(t)
	}
	d.Fatalf(t, "what is %q?", d.Cmd)
	return ""
}

func (s *story) fresh(t *testing.T, d *datadriven.TestData) string {
	wipe(t, s.e)
	s.env = newEnv(base.KeyspaceDefault)
	if d.HasArg("sharded") {
		s.env = newEnv(100)
	}
	if d.HasArg("start") {
		var key string
		d.ScanArgs(t, "start", &key)
		s.env.Start = unquote(key)
	}
	if d.HasArg("end") {
		var key string
		d.ScanArgs(t, "end", &key)
		s.env.End = unquote(key)
	}
	if d.HasArg("leases") {
		var id int64
		d.ScanArgs(t, "leases", &id)
		grant(t, s.e, id)
	}
	return ""
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	var now int64
	if d.HasArg("now") {
		d.ScanArgs(t, "now", &now)
	}
	var events []eval.Event
	s.env.Events, s.env.WantPrev = nil, d.HasArg("prev")
	if d.HasArg("events") {
		s.env.Events = &events
	}
	b := s.e.NewIndexedBatch()
	pass := eval.NewPass(b)
	var out strings.Builder
	p := &parser{lines: strings.Split(d.Input, "\n"), bad: func(format string, args ...any) { d.Fatalf(t, format, args...) }}
	for p.at < len(p.lines) {
		word := strings.Fields(p.lines[p.at])[0]
		req := p.request(p.lines[p.at])
		resp, err := s.serve(b, pass, req, now)
		if err != nil {
			fmt.Fprintf(&out, "%s: %v\n", word, err)
			if !eval.Refused(err) && check(req) == nil {
				t.Fatalf("%v is no refusal", err)
			}
			continue
		}
		show(&out, "", resp)
	}
	noError(t, pass.Close())
	noError(t, b.CommitNoSync())
	noError(t, b.Close())
	for _, ev := range events {
		fmt.Fprintf(&out, "event %s\n", showEvent(&ev))
	}
	return out.String()
}

// serve does what a server does with a request: check it, read what can be read, put the rest into the log.
func (s *story) serve(b engine.Batch, pass *eval.Pass, req proto.Message, now int64) (proto.Message, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	switch r := req.(type) {
	case *pb.RangeRequest:
		return eval.Range(b, s.env, r)
	case *pb.TxnRequest:
		if eval.IsReadOnly(r) {
			return eval.ReadTxn(b, s.env, r)
		}
	}
	return pass.Apply(s.env, command(req, now))
}

func (s *story) steps(t *testing.T, d *datadriven.TestData) string {
	budget := 100
	d.ScanArgs(t, "budget", &budget)
	var out strings.Builder
	for p := (eval.Progress{}); !p.Done; {
		b := s.e.NewBatch()
		var err error
		p, err = eval.CompactStep(s.e, b, keys.KeyspaceSpan(s.env.Keyspace), s.env.Counters.Compacted, p.Cursor, budget)
		noError(t, err)
		noError(t, b.CommitNoSync())
		noError(t, b.Close())
		fmt.Fprintf(&out, "seen %d, dropped %d", p.Seen, p.Dropped)
		if !p.Done {
			fmt.Fprintf(&out, ", then from %s", keys.Pretty(p.Cursor))
		}
		out.WriteString("\n")
	}
	return out.String()
}

func (s *story) changes(t *testing.T, d *datadriven.TestData) string {
	most, from := 1<<20, int64(0)
	d.ScanArgs(t, "from", &from)
	d.MaybeScanArgs(t, "most", &most)
	req := eval.ChangesRequest{From: base.Revision(from), MostBytes: most, Cut: d.HasArg("cut"), Prev: d.HasArg("prev"), Start: s.env.Start, End: s.env.End}
	var key string
	if d.MaybeScanArgs(t, "start", &key) {
		req.Start = unquote(key)
	}
	if d.MaybeScanArgs(t, "end", &key) {
		req.End = unquote(key)
	}
	var out strings.Builder
	for {
		page, err := eval.Changes(s.e, s.env, req)
		if err != nil {
			return out.String() + err.Error() + "\n"
		}
		for i := range page.Events {
			fmt.Fprintf(&out, "%s\n", showEvent(&page.Events[i]))
		}
		if page.NextSub != 0 {
			fmt.Fprintf(&out, "up to %d.%d\n", page.Next, page.NextSub)
		} else {
			fmt.Fprintf(&out, "up to %d\n", page.Next)
		}
		if req.From, req.FromSub = page.Next, page.NextSub; page.Next > s.env.Counters.Revision {
			return out.String()
		}
	}
}

func (s *story) dump(t *testing.T) string {
	var out strings.Builder
	for _, p := range contents(t, s.e, s.env.Keyspace) {
		rev, _ := keys.DataRevision([]byte(p.key))
		rec, err := eval.DecodeRecord(rev, []byte(p.value))
		noError(t, err)
		fmt.Fprintf(&out, "%s %s\n", keys.Pretty([]byte(p.key)), showRecord(&rec))
	}
	fmt.Fprintf(&out, "revision %d, compacted %d\n", s.env.Counters.Revision, s.env.Counters.Compacted)
	return out.String()
}

func showEvent(ev *eval.Event) string {
	s := quote(ev.Key) + " " + showRecord(&ev.Record)
	if ev.Prev != nil {
		s += " (before: " + showRecord(ev.Prev) + ")"
	}
	return s
}

func showRecord(r *eval.Record) string {
	if r.Tombstone {
		return fmt.Sprintf("deleted at %d.%d", r.Mod, r.Sub)
	}
	s := fmt.Sprintf("put at %d.%d, create %d, version %d", r.Mod, r.Sub, r.Create, r.Version)
	if r.Lease != 0 {
		s += fmt.Sprintf(", lease %d", r.Lease)
	}
	return s + ": " + quote(r.Value)
}
