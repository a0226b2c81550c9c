package watch

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// Why a create is refused: etcd's words.
const (
	reasonDuplicate = "mvcc: duplicate watch ID provided on the WatchStream"
	reasonEmpty     = "mvcc: watcher range is empty"
	reasonCompacted = "etcdserver: mvcc: required revision has been compacted"
)

// Config is what a Hub is made of.
type Config struct {
	ProgressInterval time.Duration // between two tellings of Spec.Progress, and up to a tenth more
	Rand             *base.Rand    // for jitter
	// What is remembered at most: see base.WatchStreamBytes, WatchTailBytes, WatchMergeBytes, which they are if they are not set. ResponseBytes
	// is where a response is cut: see base.WatchResponseBytes.
	StreamBytes, TailBytes, MergeBytes, ResponseBytes int
}

// EnsureDefaults sets what is not set.
func (c *Config) EnsureDefaults() {
	if c.ProgressInterval == 0 {
		c.ProgressInterval = base.WatchProgressInterval
	}
	if c.StreamBytes == 0 {
		c.StreamBytes = base.WatchStreamBytes
	}
	if c.TailBytes == 0 {
		c.TailBytes = base.WatchTailBytes
	}
	if c.ResponseBytes == 0 {
		c.ResponseBytes = base.WatchResponseBytes
	}
	if c.MergeBytes == 0 {
		c.MergeBytes = base.WatchMergeBytes
	}
}

// Validate says what is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.ProgressInterval < 0 {
		errs = append(errs, errors.New("the interval of progress is negative"))
	}
	if min(c.StreamBytes, c.TailBytes, c.MergeBytes, c.ResponseBytes) < 0 {
		errs = append(errs, errors.New("a bound is negative"))
	}
	if c.Rand == nil {
		errs = append(errs, errors.New("there is no source of random numbers"))
	}
	return errors.Join(errs...)
}

// Hub is all watches of a node. It is owned by one goroutine, which tells it what happens and steps it after that.
type Hub struct {
	cfg     Config
	now     base.Instant
	eff     Effects
	told    []Out // of the step before: its room is used again
	timers  timers
	streams map[StreamID]*stream
	sources map[base.RangeID]*source
	layout  []*source // by where they begin

	catching map[sharing]*cursor
	lost     []*part // it is not known which range they are in
	search   bool    // that may be known now
	stirred  []*source

	asks      map[uint64]asked
	lastAsk   uint64
	pulls     int       // that are under way, and count
	queued    []puller  // who waits for one
	polls     []*source // which may have to ask
	resolving []*part   // lost ones that are asked for

	ready  []*stream // with room, and parked watches
	looked int       // events that were looked at for them in this step
	group  []*watch  // room for goOn, as is parked
	parked []parking

	blocked []*source // that hold others up, or did
	stamps  []*source
	closeAt base.Instant
	asking  []*stream // for progress
	touched []*part   // room for feedSource
}

// NewHub makes a hub without watches.
func NewHub(cfg Config) *Hub {
	cfg.EnsureDefaults()
	return &Hub{
		cfg: cfg, streams: map[StreamID]*stream{}, sources: map[base.RangeID]*source{}, catching: map[sharing]*cursor{},
		asks: map[uint64]asked{}, closeAt: base.Never,
	}
}

// Open begins a stream. All its watches are in one keyspace, as revisions of two cannot be compared.
func (h *Hub) Open(id StreamID) {
	if h.streams[id] == nil {
		h.streams[id] = &stream{id: id}
	}
}

// CloseStream ends a stream and its watches, of which nothing more is said.
func (h *Hub) CloseStream(id StreamID) {
	st := h.streams[id]
	if st == nil {
		return
	}
	st.gone = true
	delete(h.streams, id)
	for _, w := range st.list {
		h.abandon(w)
	}
	st.list, st.byID, st.parked, st.creating = nil, nil, nil, nil
}

// Create begins a watch under an id, or, if it is 0, under one that the hub chooses. What it answers comes as Outs: Created first.
func (h *Hub) Create(sid StreamID, id int64, spec Spec) {
	st := h.streams[sid]
	if st == nil {
		return
	}
	in, reason := spanOf(spec)
	if id != 0 && st.watch(id) != nil && reason == "" {
		reason = reasonDuplicate
	}
	s := h.find(in.ks, in.start)
	if reason != "" {
		o := Out{Kind: Canceled, Watch: -1, Reason: reason}
		if s != nil {
			o.Revision = s.next - 1
		}
		h.refuse(st, o)
		return
	}
	st.ks = in.ks
	for id == 0 && st.watch(st.nextID) != nil {
		st.nextID++
	}
	if id == 0 {
		id = st.nextID
		st.nextID++
	}
	w := &watch{stream: st, id: id, next: spec.From, flags: flagsOf(spec)}
	st.add(w)
	if spec.Progress {
		h.ticks(st)
	}
	st.expect(w, in)
	if s == nil || !s.covers(in.start, in.end) {
		c := newCursor(in, spec.From)
		c.fresh = spec.From == 0
		c.add(w)
		h.lose(&c.part) // the next step finds what is known
		return
	}
	if spec.From == 0 {
		w.next = s.next
	}
	if !h.created(w, s.next-1) {
		return
	}
	if w.next < s.compacted && spec.From != 0 {
		h.endWatch(w, Out{Kind: Canceled, Watch: w.id, Revision: s.next - 1, Compacted: s.compacted})
		return
	}
	h.enter(in, w)
}

func spanOf(spec Spec) (in span, reason string) {
	end := string(spec.End)
	if len(spec.Start)+1 == len(end) && end[len(end)-1] == 0 && bytes.HasPrefix(spec.End, spec.Start) {
		in = span{ks: spec.Keyspace, start: end[:len(spec.Start)], end: end, prev: spec.PrevKV} // one copy of the key
	} else {
		in = span{ks: spec.Keyspace, start: string(spec.Start), end: end, prev: spec.PrevKV}
	}
	switch {
	case spec.From < 0:
		return in, reasonCompacted
	case !before(in.start, in.end):
		return in, reasonEmpty
	}
	return in, ""
}

func flagsOf(spec Spec) (f flags) {
	for flag, set := range [...]bool{spec.NoPut, spec.NoDelete, spec.Fragment, spec.Progress} {
		if set {
			f |= 1 << flag
		}
	}
	return f
}

// Cancel ends a watch, if it is there.
func (h *Hub) Cancel(sid StreamID, id int64) {
	st := h.streams[sid]
	if st == nil {
		return
	}
	if w := st.watch(id); w != nil {
		at := base.Revision(0)
		if c := w.cursor; c != nil && !c.fresh && c.part.source != nil {
			at = c.part.source.next - 1
		}
		last := Out{Kind: Canceled, Watch: id, Revision: at}
		if h.created(w, at) {
			h.emit(st, last)
		} else {
			told := st.creation(w)
			last.Revision = told.outs[0].Revision
			told.watch, told.outs = nil, append(told.outs, last)
		}
		h.remove(w)
	}
}

// endWatch ends a watch with a last word.
func (h *Hub) endWatch(w *watch, last Out) {
	h.emit(w.stream, last)
	h.remove(w)
}

// dropped ends the streams of a keyspace that is no more, and not their watches one by one: etcd's client hands a reason on only if its
// stream ends with it, or if something was compacted.
func (h *Hub) dropped(why *base.KeyspaceDropped) {
	for _, id := range slices.Sorted(maps.Keys(h.streams)) {
		if h.streams[id].ks == why.Keyspace {
			h.CloseStream(id)
			h.eff.Ends = append(h.eff.Ends, End{Stream: id, Err: why})
		}
	}
	for _, s := range slices.Clone(h.layout) {
		if s.ks == why.Keyspace {
			h.end(s)
		}
	}
}

func (h *Hub) remove(w *watch) {
	w.stream.remove(w)
	h.abandon(w)
}

// abandon takes a watch from where it is, for good.
func (h *Hub) abandon(w *watch) {
	w.flags |= ended
	if w.cursor != nil {
		h.withdraw(w)
	}
}

// withdraw takes a watch from its cursor.
func (h *Hub) withdraw(w *watch) {
	c := w.cursor
	c.remove(w)
	if len(c.watches) == 0 && !c.stirring {
		h.drop(c)
	}
}

// Step does what is due, and returns what came of it and of all that was told since the last step. What it returns is the caller's,
// Out until the next step. Out and Wants are in order; asks come before those that are cancelled.
func (h *Hub) Step(now base.Instant) Effects {
	h.now = now
	h.timers.run(now)
	h.searchLost()
	h.unpark()
	h.searchLost()
	h.issue()
	h.tellProgress()
	h.closeQuiet()
	h.timers.set(now)
	eff := h.eff
	h.eff, h.told = Effects{Out: base.Emptied(h.told)}, eff.Out
	eff.Wake = h.timers.next()
	if h.closeAt != base.Never && (eff.Wake == 0 || h.closeAt < eff.Wake) {
		eff.Wake = h.closeAt
	}
	if len(h.ready) > 0 || h.search || len(h.polls) > 0 {
		eff.Wake = now
	}
	return eff
}
