package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// watched follows one watch as etcd's client shows it: what it got, in words.
type watched struct {
	t  *testing.T
	ch clientv3.WatchChan
}

// next returns the next response that says anything.
func (w *watched) next() clientv3.WatchResponse {
	w.t.Helper()
	select {
	case r, ok := <-w.ch:
		if !ok {
			w.t.Fatal("the watch has ended")
		}
		return r
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing came")
	}
	panic("not reached")
}

// want reads as many events as are listed and compares them.
func (w *watched) want(what string, events ...string) {
	w.t.Helper()
	var got []string
	for len(got) < len(events) {
		r := w.next()
		if err := r.Err(); err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
		for _, e := range r.Events {
			got = append(got, said(e))
		}
	}
	if !slices.Equal(got, events) {
		w.t.Errorf("%s: got %q, want %q", what, got, events)
	}
}

// said is an event in words: with the value before, if that is there.
func said(e *clientv3.Event) string {
	s := "put " + string(e.Kv.Key) + "=" + string(e.Kv.Value)
	if e.Type == mvccpb.Event_DELETE {
		s = "delete " + string(e.Kv.Key)
	}
	if e.PrevKv != nil {
		s += " was " + string(e.PrevKv.Value)
	}
	return s
}

// TestWatch: what etcd's client can ask of a watch, through each node of a cluster of four, of which one has no replica of the keys.
func TestWatch(t *testing.T) {
	c := startCluster(t, 4, "--watch-progress-notify-interval", "200ms")
	for i, p := range c.procs {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			s := &watchSession{session{T: t, ctx: ctx, cl: c.client(p.addr), prefix: fmt.Sprintf("w%d/", i)}}
			s.nowAndPast()
			s.filtersAndPrev()
			s.whole()
			s.many()
			s.progress()
			s.refused()
			s.compacted()
		})
	}
}

type watchSession struct{ session }

func (s *watchSession) watch(k string, opts ...clientv3.OpOption) *watched {
	return &watched{s.T, s.cl.Watch(s.ctx, s.key(k), opts...)}
}

func (s *watchSession) event(format string, args ...any) string {
	return strings.ReplaceAll(fmt.Sprintf(format, args...), "@", s.prefix)
}

// created waits for the answer to the creation of a watch, and says at which revision.
func (w *watched) created() int64 {
	w.t.Helper()
	r := w.next()
	if !r.Created {
		w.t.Fatalf("not created first: %+v", r)
	}
	return r.Header.Revision
}

func (s *watchSession) nowAndPast() {
	now := s.watch("a", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	at := now.created()
	r1 := s.put("a1", "x").Header.Revision
	if at >= r1 {
		s.Errorf("created at %d, and what was written after that is %d", at, r1)
	}
	s.put("a2", "y")
	s.put("b", "not seen")
	s.put("a1", "z")
	all := []string{s.event("put @a1=x"), s.event("put @a2=y"), s.event("put @a1=z")}
	now.want("from now on", all...)
	s.watch("a", clientv3.WithPrefix(), clientv3.WithRev(r1)).want("from the past", all...)
	s.watch("a1", clientv3.WithRev(r1+1)).want("one key from between", all[2])
	future := s.watch("a", clientv3.WithPrefix(), clientv3.WithRev(r1+5))
	s.put("a1", "before it begins")
	s.put("a2", "begins")
	future.want("from the future", s.event("put @a2=begins"))
	// All of a transaction comes at once, in order.
	txn := s.watch("t/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	txn.created()
	var ops []clientv3.Op
	for i := range 50 {
		ops = append(ops, clientv3.OpPut(s.key(fmt.Sprintf("t/%02d", i)), "v"))
	}
	if _, err := s.cl.Txn(s.ctx).Then(ops...).Commit(); err != nil {
		s.Fatal(err)
	}
	if r := txn.next(); len(r.Events) != 50 || string(r.Events[49].Kv.Key) != s.key("t/49") {
		s.Errorf("a transaction of 50 came as %d events", len(r.Events))
	}
}

func (s *watchSession) filtersAndPrev() {
	rev := s.put("f", "1").Header.Revision
	s.put("f", "2")
	if _, err := s.cl.Delete(s.ctx, s.key("f")); err != nil {
		s.Fatal(err)
	}
	s.put("f", "3")
	for _, from := range []int64{rev, rev + 1} {
		all := []string{s.event("put @f=1"), s.event("put @f=2 was 1"), s.event("delete @f was 2"), s.event("put @f=3")}[from-rev:]
		s.watch("f", clientv3.WithRev(from), clientv3.WithPrevKV()).want("with the version before", all...)
	}
	s.watch("f", clientv3.WithRev(rev), clientv3.WithFilterPut()).want("deletes", s.event("delete @f"))
	s.watch("f", clientv3.WithRev(rev), clientv3.WithFilterDelete()).want("puts", s.event("put @f=1"), s.event("put @f=2"), s.event("put @f=3"))
	prev := s.watch("f", clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	prev.created()
	s.put("f", "4")
	prev.want("the version before, live", s.event("put @f=4 was 3"))
}

func (s *watchSession) whole() {
	all := &watched{s.T, s.cl.Watch(s.ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())}
	all.created()
	from := s.watch("k5", clientv3.WithFromKey(), clientv3.WithCreatedNotify())
	from.created()
	s.put("k1", "x")
	s.put("k6", "y")
	all.want("everything", s.event("put @k1=x"), s.event("put @k6=y"))
	from.want("from a key on", s.event("put @k6=y"))
}

// many has a thousand watches on one stream.
func (s *watchSession) many() {
	const n = 1000
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var all []*watched
	for i := range n {
		w := &watched{s.T, s.cl.Watch(ctx, s.key(fmt.Sprintf("m%d", i%10)), clientv3.WithCreatedNotify())}
		all = append(all, w)
	}
	for _, w := range all {
		w.created()
	}
	for i := range 10 {
		s.put(fmt.Sprintf("m%d", i), "x")
	}
	for i, w := range all {
		w.want("one of many", s.event("put @m%d=x", i%10))
	}
	cancel()
	for _, w := range all {
		for range w.ch { // it ends
		}
	}
}

func (s *watchSession) progress() {
	w := s.watch("p", clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	w.created()
	rev := s.put("p", "x").Header.Revision
	w.want("before the progress", s.event("put @p=x"))
	for {
		r := w.next()
		if !r.IsProgressNotify() {
			s.Fatalf("not a progress notification: %+v", r)
		}
		if r.Header.Revision >= rev {
			break
		}
	}
	// By hand: it is not below what was written before it was asked for, and all of that has come.
	ctx := clientv3.WithRequireLeader(s.ctx) // a stream of its own
	w = &watched{s.T, s.cl.Watch(ctx, s.key("q"), clientv3.WithCreatedNotify())}
	w.created()
	rev = s.put("q", "x").Header.Revision
	// A node may be a moment behind, and says so truly; at last it is not.
	for seen, at := false, int64(0); at < rev; {
		if err := s.cl.RequestProgress(ctx); err != nil {
			s.Fatal(err)
		}
		for told := false; !told; {
			r := w.next()
			if told = r.IsProgressNotify(); told {
				at = r.Header.Revision
			}
			seen = seen || len(r.Events) > 0
		}
		if at >= rev && !seen {
			s.Fatalf("progress at %d before the event of %d", at, rev)
		}
	}
}

func (s *watchSession) refused() {
	w := &watched{s.T, s.cl.Watch(s.ctx, s.key("z"), clientv3.WithRange(s.key("a")))}
	if r := w.next(); !r.Canceled || r.Err() == nil || !strings.Contains(r.Err().Error(), "watcher range is empty") {
		s.Errorf("an empty range: %+v", r)
	}
	w = s.watch("z", clientv3.WithRev(-1))
	if r := w.next(); !r.Canceled || r.Err() == nil || !strings.Contains(r.Err().Error(), "required revision has been compacted") {
		s.Errorf("a negative revision: %+v", r)
	}
}

func (s *watchSession) compacted() {
	rev := s.put("c", "1").Header.Revision
	mark := s.put("c", "2").Header.Revision
	live := s.watch("c", clientv3.WithRev(rev))
	live.want("before the compaction", s.event("put @c=1"), s.event("put @c=2"))
	if _, err := s.cl.Compact(s.ctx, mark); err != nil {
		s.Fatal(err)
	}
	for _, opts := range [][]clientv3.OpOption{{clientv3.WithRev(rev)}, {clientv3.WithPrefix(), clientv3.WithRev(1)}} {
		eventually(s.T, 10*time.Second, func() error { // the node's replica may be a moment behind the compaction
			ctx, cancel := context.WithCancel(s.ctx)
			defer cancel()
			r := (&watched{s.T, s.cl.Watch(ctx, s.key("c"), opts...)}).next()
			if !r.Canceled || r.CompactRevision != mark || !errors.Is(r.Err(), rpctypes.ErrCompacted) {
				return fmt.Errorf("below the mark %d: %+v, %v", mark, r, r.Err())
			}
			return nil
		})
	}
	s.put("c", "3")
	live.want("over the compaction", s.event("put @c=3"))
	s.watch("c", clientv3.WithRev(mark)).want("at the mark", s.event("put @c=2"), s.event("put @c=3"))
}
