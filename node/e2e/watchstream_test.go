package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/internal/base"
)

// What clients see of a watch's stream that no library shows: requests that make no sense, pieces, a reader that does not read, and JSON
// over HTTP. What etcd answers is taken from its server/etcdserver/api/v3rpc/watch.go and server/storage/mvcc/watcher.go, of 3.6 and 3.7.

// rawWatch is a stream of watches without anybody between. What is not asked for by next stays in the network and in the node.
type rawWatch struct {
	t      *testing.T
	stream pb.Watch_WatchClient
}

// dialRaw opens a connection that lets the node send ahead only what gRPC's smallest window allows.
func dialRaw(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(rawWindow),
		grpc.WithInitialConnWindowSize(rawWindow), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

const rawWindow = 64 << 10

func openRaw(t *testing.T, ctx context.Context, conn *grpc.ClientConn) *rawWatch {
	t.Helper()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &rawWatch{t, stream}
}

func (w *rawWatch) ask(r *pb.WatchRequest) {
	w.t.Helper()
	if err := w.stream.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *rawWatch) create(r *pb.WatchCreateRequest) {
	w.t.Helper()
	w.ask(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (w *rawWatch) cancel(id int64) {
	w.t.Helper()
	w.ask(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *rawWatch) progress() {
	w.t.Helper()
	w.ask(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (w *rawWatch) next() *pb.WatchResponse {
	w.t.Helper()
	r, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// wantNext compares the next response, without its header's ids and term, with what is expected.
func (w *rawWatch) wantNext(what, want string) {
	w.t.Helper()
	r := w.next()
	got := fmt.Sprintf("w%d at %d", r.WatchId, r.Header.GetRevision())
	for _, is := range []struct {
		it   bool
		says string
	}{{r.Created, " created"}, {r.Canceled, " canceled"}, {r.Fragment, " fragment"}, {r.CompactRevision != 0, fmt.Sprintf(" compacted %d", r.CompactRevision)},
		{r.CancelReason != "", ": " + r.CancelReason}} {
		if is.it {
			got += is.says
		}
	}
	for _, e := range r.Events {
		got += fmt.Sprintf(" %s@%d", e.Kv.Key, e.Kv.ModRevision)
	}
	if got != want {
		w.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// TestWatchStreams: one node, and streams of watches as they are on the wire.
func TestWatchStreams(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	c.waitReady()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	x := &streams{session: session{T: t, ctx: ctx, cl: c.client()}, conn: dialRaw(t, c.procs[0].addr), p: c.procs[0]}
	for _, part := range []struct {
		name string
		run  func(*streams)
	}{{"nonsense", (*streams).nonsense}, {"past and future", (*streams).pastAndFuture}, {"pieces", (*streams).pieces}, {"slow reader", (*streams).slowReader},
		{"gateway", (*streams).gateway}} {
		t.Run(part.name, func(t *testing.T) {
			of := *x
			of.session.T = t
			part.run(&of)
		})
	}
}

type streams struct {
	session
	conn *grpc.ClientConn
	p    *proc
}

func (s *streams) open() *rawWatch { return openRaw(s.T, s.ctx, s.conn) }

// nonsense: what cannot be is answered as etcd answers it, in the order of the requests, and the stream goes on.
func (s *streams) nonsense() {
	at := s.put("k", "1").Header.Revision
	w := s.open()
	w.progress() // of no watches: no answer
	w.create(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 7})
	w.create(&pb.WatchCreateRequest{Key: []byte("other"), WatchId: 7})
	w.create(&pb.WatchCreateRequest{Key: []byte("z"), RangeEnd: []byte("a")})
	w.create(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: -1})
	w.create(&pb.WatchCreateRequest{Key: []byte("z"), RangeEnd: []byte("a"), StartRevision: -1, WatchId: 7})
	const compacted = "etcdserver: mvcc: required revision has been compacted"
	for _, want := range []string{
		"w7 at %d created", "w-1 at %d created canceled: mvcc: duplicate watch ID provided on the WatchStream",
		"w-1 at %d created canceled: mvcc: watcher range is empty", "w-1 at %d created canceled: " + compacted, "w-1 at %d created canceled: " + compacted,
	} {
		w.wantNext("in turn", fmt.Sprintf(want, at))
	}
	w.ask(&pb.WatchRequest{}) // of nothing: no answer
	w.cancel(99)              // of no watch: no answer
	w.cancel(7)
	w.cancel(7)
	w.progress()
	w.create(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 7})
	w.create(&pb.WatchCreateRequest{Key: []byte("k")})
	w.create(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 1})
	w.create(&pb.WatchCreateRequest{Key: []byte("k")})
	for _, want := range []string{
		"w7 at %d canceled", "w7 at %d created", "w0 at %d created", "w1 at %d created", "w2 at %d created",
	} {
		w.wantNext("in turn", fmt.Sprintf(want, at))
	}
	at = s.put("k", "2").Header.Revision
	for range 4 { // of each that is left, in any order
		if r := w.next(); len(r.Events) != 1 || r.Header.Revision != at {
			s.Errorf("%v", r)
		}
	}
}

// pastAndFuture: a watch below the compaction mark is created, and canceled with the mark; one of the future waits.
func (s *streams) pastAndFuture() {
	first := s.put("k", "1").Header.Revision
	mark := s.put("k", "2").Header.Revision
	if _, err := s.cl.Compact(s.ctx, mark); err != nil {
		s.Fatal(err)
	}
	w := s.open()
	w.create(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: first})
	w.wantNext("below the mark", fmt.Sprintf("w0 at %d created", mark))
	w.wantNext("below the mark", fmt.Sprintf("w0 at %d canceled compacted %d", mark, mark))
	w.create(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: mark})
	w.wantNext("at the mark", fmt.Sprintf("w1 at %d created", mark))
	w.wantNext("at the mark", fmt.Sprintf("w1 at %d k@%d", mark, mark))
	w.cancel(1)
	w.wantNext("canceled", fmt.Sprintf("w1 at %d canceled", mark))
	w.create(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: mark + 3})
	w.wantNext("of the future", fmt.Sprintf("w2 at %d created", mark))
	for range 3 {
		s.put("k", "x")
	}
	w.wantNext("of the future", fmt.Sprintf("w2 at %d k@%d", mark+3, mark+3))
}

// pieces: a revision that is larger than a request may be is sent in pieces to those that take them, all but the last of which say that there is more; and
// etcd's client puts them together.
func (s *streams) pieces() {
	const keys, size = 20, 60 << 10
	joined := &watched{s.T, s.cl.Watch(s.ctx, "big/", clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())}
	joined.created()
	w := s.open()
	w.create(&pb.WatchCreateRequest{Key: []byte("big/"), RangeEnd: []byte("big0"), WatchId: 1, Fragment: true, PrevKv: true})
	w.create(&pb.WatchCreateRequest{Key: []byte("big/"), RangeEnd: []byte("big0"), WatchId: 2, PrevKv: true})
	for range 2 {
		if r := w.next(); !r.Created || r.Canceled {
			s.Fatalf("%v", r)
		}
	}
	for round := range 2 {
		var ops []clientv3.Op
		for i := range keys {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("big/%02d", i), strings.Repeat(fmt.Sprint(round), size)))
		}
		done, err := s.cl.Txn(s.ctx).Then(ops...).Commit()
		if err != nil {
			s.Fatal(err)
		}
		at := done.Header.Revision
		n := 0
		check := func(what string, events []*clientv3.Event) {
			s.Helper()
			for _, e := range events {
				if string(e.Kv.Key) != fmt.Sprintf("big/%02d", n%keys) || e.Kv.ModRevision != at || len(e.Kv.Value) != size || (e.PrevKv != nil) != (round == 1) {
					s.Fatalf("%s: event %d is of %s@%d, %d bytes", what, n, e.Kv.Key, e.Kv.ModRevision, len(e.Kv.Value))
				}
				n++
			}
		}
		parts, whole := 0, 0
		for n < 2*keys {
			r := w.next()
			events := make([]*clientv3.Event, 0, keys)
			for _, e := range r.Events {
				events = append(events, (*clientv3.Event)(e))
			}
			before := n % keys
			check(fmt.Sprintf("w%d", r.WatchId), events)
			switch bytes := len(events) * size * (round + 1); {
			case r.Header.Revision != at:
				s.Errorf("at %d, want %d", r.Header.Revision, at)
			case r.WatchId == 2:
				whole++
				if r.Fragment || len(events) != keys {
					s.Errorf("who takes no pieces got %d events, fragment %v", len(events), r.Fragment)
				}
			case r.Fragment != (before+len(events) < keys) || bytes > base.WatchResponseBytes:
				s.Errorf("a piece with events %d to %d, %d bytes: fragment %v", before, before+len(events), bytes, r.Fragment)
			default:
				parts++
			}
		}
		if least := keys * size * (round + 1) / base.WatchResponseBytes; whole != 1 || parts < least {
			s.Errorf("%d bytes came in %d pieces, and %d times whole", keys*size*(round+1), parts, whole)
		}
		n = 0
		r := joined.next()
		if check("etcd's client", r.Events); n != keys {
			s.Errorf("etcd's client shows %d events at once", n)
		}
	}
}

// slowReader: who does not read costs the node what one queue holds, and nobody else anything; once it reads it gets everything.
func (s *streams) slowReader() {
	const n, size = 80, 256 << 10
	slow, quick := openRaw(s.T, s.ctx, dialRaw(s.T, s.p.addr)), s.open()
	for _, w := range []*rawWatch{slow, quick} {
		w.create(&pb.WatchCreateRequest{Key: []byte("slow/"), RangeEnd: []byte("slow0")})
		if r := w.next(); !r.Created {
			s.Fatalf("%v", r)
		}
	}
	got := 0
	read := func(w *rawWatch) {
		s.Helper()
		for _, e := range w.next().Events {
			if want := fmt.Sprintf("slow/%03d", got); string(e.Kv.Key) != want {
				s.Fatalf("%s came, want %s", e.Kv.Key, want)
			}
			got++
		}
	}
	before := metrics(s.T, s.p)
	value := strings.Repeat("x", size)
	for i := range n {
		s.put(fmt.Sprintf("slow/%03d", i), value)
		for got <= i { // before anything more is written
			read(quick)
		}
	}
	m := metrics(s.T, s.p)
	if m["cairn_watch_streams_behind"] != 1 {
		s.Errorf("%v streams are behind, and one does not read", m["cairn_watch_streams_behind"])
	}
	// The events that the node has for it: its queue is full, and beside it one response may wait.
	const most = (base.WatchStreamBytes + 2*base.WatchResponseBytes) / size
	if has := m["cairn_watch_events_total"] - before["cairn_watch_events_total"] - n; has < 1 || has > most {
		s.Errorf("the node holds %v events of %d bytes for who does not read, at most %d should be", has, size, most)
	}
	for got = 0; got < n; {
		read(slow)
	}
	eventually(s.T, 10*time.Second, func() error {
		if behind := metrics(s.T, s.p)["cairn_watch_streams_behind"]; behind != 0 {
			return fmt.Errorf("all is read, and %v streams are behind", behind)
		}
		return nil
	})
	s.put(fmt.Sprintf("slow/%03d", n), "live again")
	read(slow)
}

// gateway: a watch by plain HTTP is a line of JSON for each response, each wrapped in a result, as etcd's gateway serves it.
func (s *streams) gateway() {
	foo := `"key":"` + b64("foo") + `"`
	first := s.put("foo", "bar").Header.Revision
	lines := s.post(`{"create_request":{` + foo + `,"progress_notify":true,"prev_kv":true}}`)
	header := func(rev int64) string {
		return fmt.Sprintf(`"header":{"cluster_id":"N","member_id":"N","revision":"%d","raft_term":"N"}`, rev)
	}
	lines(`{"result":{` + header(first) + `,"created":true}}`)
	second := s.put("foo", "baz").Header.Revision
	was := fmt.Sprintf(`{"key":"Zm9v","create_revision":"%d","mod_revision":"%d","version":"1","value":"YmFy"}`, first, first)
	lines(fmt.Sprintf(`{"result":{%s,"events":[{"kv":{"key":"Zm9v","create_revision":"%d","mod_revision":"%d","version":"2","value":"YmF6"},"prev_kv":%s}]}}`,
		header(second), first, second, was))
	if _, err := s.cl.Delete(s.ctx, "foo"); err != nil {
		s.Fatal(err)
	}
	third := second + 1
	lines(fmt.Sprintf(`{"result":{%s,"events":[{"type":"DELETE","kv":{"key":"Zm9v","mod_revision":"%d"},"prev_kv":{"key":"Zm9v","create_revision":"%d","mod_revision":"%d","version":"2","value":"YmF6"}}]}}`,
		header(third), third, first, second))
	lines = s.post(`{"create_request":{` + foo + `,"watch_id":"5"}} {"cancel_request":{"watch_id":"5"}} {"create_request":{"key":"eg==","range_end":"YQ=="}}`)
	lines(`{"result":{` + header(third) + `,"watch_id":"5","created":true}}`)
	lines(`{"result":{` + header(third) + `,"watch_id":"5","canceled":true}}`)
	lines(`{"result":{` + header(third) + `,"watch_id":"-1","created":true,"canceled":true,"cancel_reason":"mvcc: watcher range is empty"}}`)
	if _, err := s.cl.Compact(s.ctx, third); err != nil {
		s.Fatal(err)
	}
	lines = s.post(`{"create_request":{` + foo + fmt.Sprintf(`,"start_revision":"%d"}}`, second))
	lines(`{"result":{` + header(third) + `,"created":true}}`)
	lines(`{"result":{` + header(third) + fmt.Sprintf(`,"canceled":true,"compact_revision":"%d"}}`, third))
}

// post begins a watch, and returns what compares the next line.
func (s *streams) post(body string) (line func(want string)) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, "http://"+s.p.addr+"/v3/watch", strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		s.Fatalf("%s: %s", body, resp.Status)
	}
	all := json.NewDecoder(resp.Body)
	return func(want string) {
		s.Helper()
		var raw json.RawMessage
		var compact bytes.Buffer
		if err := all.Decode(&raw); err != nil {
			s.Fatal(err)
		}
		if err := json.Compact(&compact, raw); err != nil {
			s.Fatal(err)
		}
		if got := whoever.ReplaceAllString(compact.String(), `"$1":"N"`); got != want {
			s.Errorf("%s:\n%s, want\n%s", body, got, want)
		}
	}
}
