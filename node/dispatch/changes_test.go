package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/meta/watch"
)

const changes = rangepb.RequestKind_REQUEST_KIND_CHANGES

// changes asks for a page and lists it.
func (w *world) changes(from base.NodeID, req *rangepb.ChangesRequest) (*rangepb.ChangesResponse, string) {
	w.t.Helper()
	resp, err := w.nodes[from].Changes(w.ctx(), req)
	must(w.t, err)
	page, err := watch.DecodePage(resp)
	must(w.t, err)
	var out []string
	for _, ev := range page.Events {
		out = append(out, string(ev.Key))
	}
	return resp, strings.Join(out, " ")
}

// What was written is read where a replica is: here, or on another node, in the part of the span that one range holds.
func TestChangesOfARange(t *testing.T) {
	w := newSharded(t, 2, 3)
	first := w.put(w.nodes[1], "0a", "x")
	second := w.put(w.nodes[2], "0b", "x")
	third := w.put(w.nodes[1], "1a", "x")
	for id := range w.nodes {
		resp, got := w.changes(id, &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), From: first})
		if got != "0a 0b" || string(resp.End) != "1" || resp.Next != second+1 || resp.Revision != second || resp.RangeId != 100 {
			t.Errorf("%s reads %s of %v", id, got, resp)
		}
		if resp, got = w.changes(id, &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), Start: []byte("0b"), End: []byte("0c"), From: first}); got != "0b" || string(resp.End) != "0c" {
			t.Errorf("%s reads %s of %v", id, got, resp)
		}
		if resp, got = w.changes(id, &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), Start: resp.End, From: second + 1}); got != "" || resp.Next != second+1 {
			t.Errorf("%s reads %s of %v", id, got, resp)
		}
		if resp, got = w.changes(id, &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), Start: []byte("1"), From: 1}); got != "1a" || resp.Next != third+1 {
			t.Errorf("%s reads %s of %v", id, got, resp)
		}
	}
	if n := w.requests(changes); n != 4 {
		t.Errorf("%d questions between nodes, want those of the node without a replica, 4", n)
	}
}

// Keys that are nowhere for long may be those of a keyspace that is no more: that is looked up once, and said. Else it is tried again.
func TestKeyspaceDropped(t *testing.T) {
	w := newWorld(t, 1)
	d := w.nodes[1]
	const dropped, slow = base.FirstFreeID, base.FirstFreeID + 1
	asked := map[base.KeyspaceID]int{}
	d.cfg.Gone = func(_ context.Context, ks base.KeyspaceID) (bool, error) {
		asked[ks]++
		return ks == dropped, nil
	}
	_, err := d.Changes(w.ctx(), &rangepb.ChangesRequest{KeyspaceId: uint64(dropped), Start: []byte("a")})
	var gone *base.KeyspaceDropped
	if !errors.As(err, &gone) || gone.Keyspace != dropped {
		t.Errorf("dropped: %v", err)
	}
	ctx, cancel := context.WithTimeout(w.ctx(), 3*base.RetryMax)
	defer cancel()
	_, err = d.Changes(ctx, &rangepb.ChangesRequest{KeyspaceId: uint64(slow), Start: []byte("a")})
	var none *route.NoRange
	if !errors.As(err, &none) {
		t.Errorf("not found yet: %v", err)
	}
	if asked[dropped] != 1 || asked[slow] != 1 {
		t.Errorf("asked %v", asked)
	}
}

// A request may wait for what comes, here and at another node; it ends with what it waited for, with its time, and with its asker.
func TestChangesWait(t *testing.T) {
	w := newSharded(t, 2, 1)
	rev := w.put(w.nodes[1], "a", "x")
	for id := range w.nodes {
		type answer struct {
			resp *rangepb.ChangesResponse
			got  string
		}
		ch := make(chan answer, 1)
		wait := &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), From: rev + 1, WaitMicros: uint64(base.WatchPollTime.Microseconds()), Known: rev}
		go func() {
			resp, got := w.changes(id, wait)
			ch <- answer{resp, got}
		}()
		select {
		case a := <-ch:
			t.Fatalf("%s did not wait: %v", id, a.resp)
		case <-time.After(50 * time.Millisecond): // the proof that it waits can only be that it does not end
		}
		key := fmt.Sprint("b", id)
		rev = w.put(w.nodes[1], key, "x")
		if a := <-ch; a.got != key || a.resp.Next != rev+1 {
			t.Errorf("%s: %s of %v", id, a.got, a.resp)
		}
		short := &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), From: rev + 1, WaitMicros: 1000, Known: rev}
		if resp, got := w.changes(id, short); got != "" || resp.Next != rev+1 || resp.Revision != rev {
			t.Errorf("%s waited in vain for %s of %v", id, got, resp)
		}
		ahead := &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), From: rev + 100, WaitMicros: wait.WaitMicros, Known: rev - 1}
		if resp, _ := w.changes(id, ahead); resp.Revision != rev {
			t.Errorf("%s: %v", id, resp)
		}
		ctx, cancel := context.WithCancel(w.ctx())
		go cancel()
		wait.From, wait.Known = rev+1, rev
		if _, err := w.nodes[id].Changes(ctx, wait); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: its asker went, and it says %v", id, err)
		}
	}
}

// A range that moves or is cut while somebody waits at it is found again.
func TestChangesOfARangeThatIsCut(t *testing.T) {
	w := newWorld(t, 2)
	shard(t, w)
	rev := func(key string) int64 {
		m, err := w.nodes[1].Propose(w.ctx(), paged, []byte(key), putCommand(t, key, "x"))
		must(t, err)
		return m.(*pb.PutResponse).Header.Revision
	}
	first := rev("a")
	if _, got := w.changes(2, &rangepb.ChangesRequest{KeyspaceId: uint64(paged), From: first}); got != "a" {
		t.Errorf("read %s", got)
	}
	cut(t, w, "m", 101)
	rev("z")
	resp, got := w.changes(2, &rangepb.ChangesRequest{KeyspaceId: uint64(paged), Start: []byte("n"), From: first})
	if got != "z" || resp.RangeId != 101 {
		t.Errorf("behind the cut: %s of %v", got, resp)
	}
	if resp, got = w.changes(2, &rangepb.ChangesRequest{KeyspaceId: uint64(paged), From: first}); got != "a" || string(resp.End) != "m" {
		t.Errorf("before the cut: %s of %v", got, resp)
	}
}

// A node that has no replica any more, or cannot be reached, holds nobody up for long: the next one is asked.
func TestChangesOfAnotherReplica(t *testing.T) {
	w := newSharded(t, 4, 1)
	rev := w.put(w.nodes[1], "a", "x")
	d := desc.Clone(w.nodes[1].cfg.Store.View(100).Descriptor)
	d.Generation++ // as if the index had told it a moment ago
	d.Replicas = append([]*metapb.Replica{
		{ReplicaId: 2, NodeId: 2, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}, // it has none
		{ReplicaId: 3, NodeId: 3, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}, // it cannot be reached
	}, d.Replicas...)
	w.mu.Lock()
	w.fails[3] = true
	w.mu.Unlock()
	w.nodes[4].Learn(d)
	for range 4 {
		if _, got := w.changes(4, &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), From: rev}); got != "a" {
			t.Errorf("read %q", got)
		}
	}
}

// Below the mark there is nothing, and the answer says so.
func TestChangesCompacted(t *testing.T) {
	w := newWorld(t, 2)
	for i := range 5 {
		_, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, []byte("k"), putCommand(t, "k", fmt.Sprint(i)))
		must(t, err)
	}
	must(t, w.compact(base.KeyspaceDefault, 4))
	for id := range w.nodes {
		if resp, got := w.changes(id, &rangepb.ChangesRequest{KeyspaceId: uint64(base.KeyspaceDefault), From: 3}); got != "" || resp.Compacted != 4 {
			t.Errorf("%s below the mark: %s of %v", id, got, resp)
		}
		if _, got := w.changes(id, &rangepb.ChangesRequest{KeyspaceId: uint64(base.KeyspaceDefault), From: 4}); got != "k k k" {
			t.Errorf("%s at the mark: %s", id, got)
		}
	}
}

// One revision that does not fit between nodes comes in pieces, and is one page.
func TestChangesOfALargeRevision(t *testing.T) {
	w := newWorld(t, 2)
	propose := func(cmd *kvpb.Command) {
		t.Helper()
		_, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, []byte("k"), cmd)
		must(t, err)
	}
	for i := range 12 {
		propose(putCommand(t, fmt.Sprint("k", i), strings.Repeat("x", 1<<20)))
	}
	propose(&kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: encode(t, &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})}})
	before := w.requests(changes)
	resp, got := w.changes(2, &rangepb.ChangesRequest{KeyspaceId: uint64(base.KeyspaceDefault), From: 14, PrevKv: true})
	if len(resp.Events) != 12 || resp.Next != 15 || resp.NextSub != 0 {
		t.Errorf("%d events (%s) up to %d.%d", len(resp.Events), got, resp.Next, resp.NextSub)
	}
	if n := w.requests(changes) - before; n < 3 {
		t.Errorf("12 MiB came in %d pieces", n)
	}
	if here, local := w.changes(1, &rangepb.ChangesRequest{KeyspaceId: uint64(base.KeyspaceDefault), From: 14, PrevKv: true}); local != got || len(here.Events) != 12 {
		t.Errorf("here it is %s", local)
	}
	must(t, w.compact(base.KeyspaceDefault, 14))
}

func TestChangesRequestUnreadable(t *testing.T) {
	w := newWorld(t, 2)
	err := w.nodes[2].ask(w.ctx(), 1, base.RangeDefault, changes, []byte{0xFF}, &rangepb.ChangesResponse{})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
}

func quiet(keys ...string) (out []watch.Quiet) {
	for _, k := range keys {
		out = append(out, watch.Quiet{Key: []byte(k)})
	}
	return out
}

// Closed, ranges are at the present, with one entry each, whichever of their keys were named; Now is what nobody's answer is above.
func TestCloseAndNow(t *testing.T) {
	w := newSharded(t, 2, 4)
	d := w.nodes[2]
	for i := range 4 { // and each has its leader
		w.put(d, fmt.Sprint(i), "w")
	}
	last := w.put(d, "0", "x")
	now, err := d.Now(w.ctx(), sharded, nil, []byte("1"))
	must(t, err)
	if int64(now) != last {
		t.Errorf("one range is at %d, and its last write at %d", now, last)
	}
	began := d.NowMicros()
	applied := func(id base.RangeID) uint64 {
		return w.nodes[base.NodeID(1+(id-100)%2)].cfg.Store.View(id).AppliedIndex
	}
	var before [4]uint64
	for i := range before {
		before[i] = applied(base.RangeID(100 + i))
	}
	must(t, d.Close(w.ctx(), sharded, quiet("0", "0a", "1", "2", "2")))
	for i := range before {
		id := base.RangeID(100 + i)
		resp, _ := w.changes(2, &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), Start: fmt.Append(nil, i), From: 1})
		entries, closed := applied(id)-before[i], resp.Revision >= began && resp.Next > began
		if want := i != 3; closed != want || want && entries != 1 || !want && entries != 0 {
			t.Errorf("%s: %d entries, at %d, began at %d", id, entries, resp.Revision, began)
		}
	}
	var newest int64
	for i := range 4 {
		newest = max(newest, w.put(w.nodes[1], fmt.Sprint(i), "y"))
	}
	now, err = d.Now(w.ctx(), sharded, []byte("0"), nil)
	must(t, err)
	if int64(now) < newest {
		t.Errorf("it is %d, and %d was answered before", now, newest)
	}
	for i := range 4 {
		if rev := w.put(w.nodes[1], fmt.Sprint(i), "z"); rev <= int64(now) {
			t.Errorf("written at %d, after it was %d", rev, now)
		}
	}
	ahead := base.Revision(d.NowMicros()) + 1<<40 // what a range has come to is not in the future, as in a read over several
	must(t, d.Close(w.ctx(), sharded, []watch.Quiet{{Key: []byte("0")}, {Key: []byte("0a"), Above: ahead}, {Key: []byte("1"), Above: 1}}))
	if rev := w.put(w.nodes[1], "0", "z"); rev != int64(ahead)+1 {
		t.Errorf("written at %d, after the range was closed at %d", rev, ahead)
	}
	if rev := w.put(w.nodes[1], "1", "z"); rev >= int64(ahead) {
		t.Errorf("written at %d, though nobody waits for the range to come to %d", rev, ahead)
	}
	if err := d.Close(w.ctx(), base.KeyspaceDefault, quiet("a")); err == nil {
		t.Error("a keyspace that counts its revisions was closed")
	}
}

// Watchers of pages see every write once, whatever is compacted and cut meanwhile.
func TestChangesUnderWriters(t *testing.T) {
	const writes = 300
	w := newWorld(t, 2)
	shard(t, w)
	ctx, cancel := context.WithCancel(w.ctx())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range writes {
			key := fmt.Sprintf("%c%d", 'a'+i%26, i)
			if _, err := w.nodes[1].Propose(ctx, paged, []byte(key), putCommand(t, key, "x")); err != nil {
				t.Error(err)
				return
			}
			if i == writes/2 {
				cut(t, w, "m", 101)
			}
		}
	})
	seen := map[string]int{}
	next := map[string]int64{"": 1} // by where a part begins
	for len(seen) < writes && ctx.Err() == nil {
		for start, from := range next {
			resp, err := w.nodes[2].Changes(ctx, &rangepb.ChangesRequest{KeyspaceId: uint64(paged), Start: []byte(start), End: []byte{}, From: from, MostBytes: 2000, WaitMicros: 10_000})
			must(t, err)
			page, err := watch.DecodePage(resp)
			must(t, err)
			for _, ev := range page.Events {
				if seen[string(ev.Key)]++; seen[string(ev.Key)] > 1 {
					t.Fatalf("%q came twice", ev.Key)
				}
			}
			next[start] = resp.Next
			if end := string(resp.End); end != "" && next[end] == 0 {
				next[end] = from // that part goes on from where all of it was
			}
		}
	}
}

// Who asks no more is answered with an error, also when what it waited for came in the same moment: an answer without a page is none.
func TestChangesAskerGoneAsTheyCome(t *testing.T) {
	w := newSharded(t, 1, 1)
	rev := w.put(w.nodes[1], "a", "x")
	ctx, cancel := context.WithCancel(w.ctx())
	cancel()
	here := &rangepb.ChangesRequest{KeyspaceId: uint64(sharded), From: rev, WaitMicros: 1000, Known: rev - 1}
	for range 100 { // what it waits for is there, and so is its end: which is seen first is chance
		if resp, err := w.nodes[1].changesHere(ctx, 100, here); resp == nil && err == nil {
			t.Fatal("neither a page nor an error")
		}
	}
}
