package linearizability

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/followpb"
)

// A watch in a history is one operation, a Follow: a request (followpb.FollowRequest) and all that the watch got until it ended. A run
// takes millions of events, and keeps them as one row of bytes each: numbers as differences, keys by their place in a table. Some twenty
// bytes an event, of which the value is the most.

// FollowKind is what a response to a watch was.
type FollowKind uint8

// The kinds.
const (
	Created   FollowKind = iota + 1 // Revision is the header's
	Events                          // Revision is the header's; Fragment: the rest of the last revision follows
	Progress                        // all up to Revision was sent before
	Compacted                       // it was ended, with Revision as the lowest that there is
)

// FollowMessage is one response to a watch.
type FollowMessage struct {
	Kind     FollowKind
	At       time.Duration // when it was read, on the driver's clock
	Revision int64
	Fragment bool
	Events   []FollowEvent
}

// FollowEvent is one event as the watch got it.
type FollowEvent struct {
	FollowVersion
	Key     string
	Deleted bool
	Prev    *FollowVersion // nil: it came without the version before
}

// FollowVersion is one version of a key. Of a deletion only Revision counts.
type FollowVersion struct {
	Revision, Create, Version, Lease int64
	Value                            string
}

// Follower writes down what one watch gets. A driver makes one for each Follow, tells it every response in order, and has Response make
// the operation's response. It is not safe for concurrent use.
type Follower struct {
	from int64
	log  []byte
	keys map[string]uint64
	resp followpb.FollowResponse
	at   time.Duration
	rev  int64 // of which the next is written as a difference
	part int64 // the revision whose rest is to come; 0: none
}

// NewFollower begins the log of a watch from a revision, that of the request.
func NewFollower(from int64) *Follower {
	return &Follower{from: from, keys: make(map[string]uint64)}
}

// Created takes note that the watch was created.
func (f *Follower) Created(at time.Duration, revision int64) {
	f.begin(Created, at, revision)
	f.resp.Next = f.from
	if f.from == 0 {
		f.resp.Next = revision + 1
	}
}

// Progress takes note of a notification.
func (f *Follower) Progress(at time.Duration, revision int64) {
	f.begin(Progress, at, revision)
	f.resp.Next = max(f.resp.Next, revision+1)
}

// Compacted takes note that the watch was ended since history before a revision is gone.
func (f *Follower) Compacted(at time.Duration, revision int64, reason string) {
	f.begin(Compacted, at, revision)
	f.resp.Compacted, f.resp.Reason = revision, reason
}

// Broken takes note that the stream broke, or that the watch was ended otherwise.
func (f *Follower) Broken(reason string) { f.resp.Broken, f.resp.Reason = true, reason }

// Events takes note of a response with events. revision is its header's.
func (f *Follower) Events(at time.Duration, revision int64, events []*mvccpb.Event, fragment bool) {
	f.begin(Events, at, revision)
	flag := uint64(0)
	if fragment {
		flag = 1
	}
	f.uint(flag)
	f.uint(uint64(len(events)))
	for _, e := range events {
		f.event(e)
	}
	if f.part = 0; len(events) > 0 {
		if last := events[len(events)-1].Kv.GetModRevision(); fragment {
			f.part = last
			f.resp.Next = max(f.resp.Next, last)
		} else {
			f.resp.Next = max(f.resp.Next, last+1)
		}
	}
	f.resp.Events += int64(len(events))
}

// Taken says how many events came.
func (f *Follower) Taken() int64 { return f.resp.Events }

// Next is the lowest revision that may still be missing; 0: the watch was not created.
func (f *Follower) Next() int64 { return f.resp.Next }

// Reached says whether one of the ends that a request names, but for the time, is reached. It is not within a revision.
func (f *Follower) Reached(req *followpb.FollowRequest) bool {
	return f.part == 0 && (req.UntilEvents > 0 && f.resp.Events >= req.UntilEvents || req.UntilRevision > 0 && f.resp.Next > req.UntilRevision)
}

// Response is the operation's. Nothing is told after it.
func (f *Follower) Response() *followpb.FollowResponse {
	f.resp.Keys = make([][]byte, len(f.keys))
	for key, i := range f.keys {
		f.resp.Keys[i] = []byte(key)
	}
	f.resp.Log = f.log
	return &f.resp
}

func (f *Follower) begin(kind FollowKind, at time.Duration, revision int64) {
	f.uint(uint64(kind))
	micros := at / time.Microsecond * time.Microsecond
	f.int(int64((micros - f.at) / time.Microsecond))
	f.at = micros
	f.revision(revision)
}

func (f *Follower) uint(v uint64) { f.log = binary.AppendUvarint(f.log, v) }
func (f *Follower) int(v int64)   { f.log = binary.AppendVarint(f.log, v) }

func (f *Follower) revision(rev int64) {
	f.int(rev - f.rev)
	f.rev = rev
}

// Flags of an event.
const (
	flagDeleted = 1 << iota
	flagPrev
	flagLease
	flagPrevLease
)

func (f *Follower) event(e *mvccpb.Event) {
	key := string(e.Kv.GetKey())
	i, ok := f.keys[key]
	if !ok {
		i = uint64(len(f.keys))
		f.keys[key] = i
	}
	flags := uint64(0)
	if e.Type == mvccpb.Event_DELETE {
		flags |= flagDeleted
	}
	if e.PrevKv != nil {
		flags |= flagPrev
	}
	if e.Kv.GetLease() != 0 {
		flags |= flagLease
	}
	if e.PrevKv.GetLease() != 0 {
		flags |= flagPrevLease
	}
	f.uint(i)
	f.uint(flags)
	f.revision(e.Kv.GetModRevision())
	f.version(e.Kv, e.Kv.GetModRevision(), flags&flagLease != 0)
	if e.PrevKv != nil {
		f.int(e.Kv.GetModRevision() - e.PrevKv.ModRevision)
		f.version(e.PrevKv, e.PrevKv.ModRevision, flags&flagPrevLease != 0)
	}
}

// version writes what belongs to one version but for its revision.
func (f *Follower) version(kv *mvccpb.KeyValue, rev int64, lease bool) {
	f.int(rev - kv.GetCreateRevision())
	f.int(kv.GetVersion())
	if lease {
		f.int(kv.GetLease())
	}
	f.uint(uint64(len(kv.GetValue())))
	f.log = append(f.log, kv.GetValue()...)
}

// FollowMessages reads a response's log.
func FollowMessages(resp *followpb.FollowResponse) ([]FollowMessage, error) {
	r := &followReader{log: resp.Log}
	for _, k := range resp.Keys {
		r.keys = append(r.keys, string(k))
	}
	var out []FollowMessage
	for len(r.log) > 0 && r.err == nil {
		out = append(out, r.message())
	}
	if r.err != nil {
		return nil, r.err
	}
	return out, nil
}

type followReader struct {
	log  []byte
	keys []string
	at   time.Duration
	rev  int64
	err  error
}

var errFollowLog = errors.New("the log of a watch says what cannot be")

func (r *followReader) fail() { r.log, r.err = nil, errFollowLog }

func (r *followReader) uint() uint64 {
	v, n := binary.Uvarint(r.log)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.log = r.log[n:]
	return v
}

func (r *followReader) int() int64 {
	v, n := binary.Varint(r.log)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.log = r.log[n:]
	return v
}

func (r *followReader) revision() int64 {
	r.rev += r.int()
	return r.rev
}

func (r *followReader) message() FollowMessage {
	m := FollowMessage{Kind: FollowKind(r.uint())}
	r.at += time.Duration(r.int()) * time.Microsecond
	m.At, m.Revision = r.at, r.revision()
	switch m.Kind {
	case Created, Progress, Compacted:
	case Events:
		m.Fragment = r.uint() == 1
		n := r.uint()
		if n > uint64(len(r.log)) {
			r.fail()
			return m
		}
		m.Events = make([]FollowEvent, 0, n)
		for range n {
			m.Events = append(m.Events, r.event())
		}
	default:
		r.fail()
	}
	return m
}

func (r *followReader) event() (e FollowEvent) {
	i := r.uint()
	if i >= uint64(len(r.keys)) {
		r.fail()
		return e
	}
	flags := r.uint()
	e.Key, e.Deleted = r.keys[i], flags&flagDeleted != 0
	e.FollowVersion = r.version(r.revision(), flags&flagLease != 0)
	if flags&flagPrev != 0 {
		prev := r.version(e.Revision-r.int(), flags&flagPrevLease != 0)
		e.Prev = &prev
	}
	return e
}

func (r *followReader) version(rev int64, lease bool) FollowVersion {
	v := FollowVersion{Revision: rev, Create: rev - r.int(), Version: r.int()}
	if lease {
		v.Lease = r.int()
	}
	n := r.uint()
	if n > uint64(len(r.log)) {
		r.fail()
		return v
	}
	v.Value = string(r.log[:n])
	r.log = r.log[n:]
	return v
}

// String is a message for people.
func (m FollowMessage) String() string {
	s := fmt.Sprintf("%s at %s, revision %d", []string{"nothing", "created", "events", "progress", "compacted"}[min(int(m.Kind), 4)], m.At, m.Revision)
	if m.Fragment {
		s += ", a fragment"
	}
	for _, e := range m.Events {
		s += ", " + e.String()
	}
	return s
}

// String is an event for people.
func (e FollowEvent) String() string {
	s := fmt.Sprintf("%q=%q@%d", e.Key, e.Value, e.Revision)
	if e.Deleted {
		s = fmt.Sprintf("%q deleted@%d", e.Key, e.Revision)
	}
	if e.Prev != nil {
		s += fmt.Sprintf(" (before: %q@%d)", e.Prev.Value, e.Prev.Revision)
	}
	return s
}
