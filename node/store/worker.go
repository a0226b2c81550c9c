package store

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/raftgroup"
)

// worker owns one loop: it takes what has come, steps the loop once, and sees to the effects. It never waits for the
// disk, except to install a snapshot.
type worker struct {
	s    *Store
	loop *raftgroup.Loop
	box  *mailbox

	appender appender
	syncer   *syncer
	applier  *applier
	frames   frameBuilder

	passes atomic.Uint64
	busy   atomic.Bool // a range here is led and in use

	leaders, awake atomic.Int64
}

// run is the worker's goroutine.
func (w *worker) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-w.box.signal:
		case <-timer.C:
		}
		if w.box.isClosed() {
			return
		}
		wake, err := w.pass(nil)
		if err != nil {
			w.s.fatal(err)
			return
		}
		if wake == base.Never {
			timer.Stop()
		} else {
			timer.Reset(max(0, wake.Sub(w.s.Now())))
		}
	}
}

// pass takes what has come, steps the loop and sees to the effects, which watch, if set, is shown before. It returns when
// the next pass is due, whether or not something comes.
func (w *worker) pass(watch func(*raftgroup.Effects)) (wake base.Instant, err error) {
	ev, asks := w.box.take()
	eff := w.loop.Step(w.s.Now(), ev)
	w.passes.Add(1)
	if watch != nil {
		watch(eff)
	}
	w.leaders.Store(int64(eff.Leaders))
	w.awake.Store(int64(eff.Awake))
	if busy := eff.Awake > 0; busy != w.busy.Load() {
		w.busy.Store(busy)
		if busy {
			w.s.supports.hurry()
		}
	}
	if err := w.carryOut(eff); err != nil {
		return 0, err
	}
	for _, f := range asks {
		f(w.loop)
	}
	return eff.Wake, nil
}

// carryOut does what the loop asked for. Readers first learn of leases that have ended; then messages go: a follower's
// sync is the longer path.
func (w *worker) carryOut(eff *raftgroup.Effects) error {
	for _, c := range eff.Commits {
		if r := w.s.replica(c.Range); r != nil {
			r.committed.Store(c.Index)
		}
	}
	for _, c := range eff.Gates {
		if r := w.s.replica(c.Range); r != nil {
			r.gate.Store(c.Gate)
		}
	}
	if len(eff.Messages) > 0 {
		w.frames.send(w.s, eff.Messages)
	}
	if eff.Seq != 0 {
		if err := w.append(eff.Seq, eff.Appends); err != nil {
			return err
		}
	}
	if len(eff.Applies) > 0 {
		w.applier.put(eff.Applies)
	}
	if len(eff.ReadsReady) > 0 {
		w.s.waiters.resolveReads(eff.ReadsReady)
	}
	for i := range eff.Latched {
		w.latched(&eff.Latched[i])
	}
	for _, f := range eff.Failed {
		if f.ID.Node == w.s.node {
			w.s.waiters.resolve(f.ID.Seq, nil, f.Err)
		}
	}
	for i := range eff.SendSnapshot {
		w.s.snapshots.send(eff.SendSnapshot[i].Message)
	}
	for _, token := range eff.DropStaged {
		w.s.snapshots.drop(token)
	}
	for i := range eff.Changes {
		w.s.changed(&eff.Changes[i])
	}
	for _, id := range eff.Cold {
		w.s.cool(id)
	}
	return nil
}

// append commits the pass's appends as one batch and leaves the waiting to the syncer. An install goes between the
// appends before and after it.
func (w *worker) append(seq uint64, appends []raftgroup.Append) error {
	from := 0
	mustSync := false
	for i := range appends {
		if appends[i].Snapshot == nil && appends[i].Destroy == 0 {
			continue
		}
		// The applier may still hold entries of this range: they come before the snapshot or the end.
		if !mutant.Is(mutant.ApplyBehindSnapshot) {
			w.applier.drain()
		}
		if appends[i].Destroy != 0 {
			w.retire(appends[i].Range)
			continue
		}
		if err := w.write(seq, appends[from:i], false, &mustSync); err != nil {
			return err
		}
		if err := w.s.snapshots.install(&appends[i]); err != nil {
			return err
		}
		w.appender.installed(&appends[i])
		from = i + 1
	}
	return w.write(seq, appends[from:], true, &mustSync)
}

// retire forgets a replica that is being destroyed. What was reported of it and not taken yet is not for the replica
// that may have come in its place: its indexes are others, and its removal is not theirs.
func (w *worker) retire(id base.RangeID) {
	w.s.forget(id)
	w.box.put(func(ev *raftgroup.Events) {
		ev.Applied = slices.DeleteFunc(ev.Applied, func(a raftgroup.Applied) bool { return a.Range == id })
	})
}

// write commits one batch. last says that seq is durable when it is.
func (w *worker) write(seq uint64, appends []raftgroup.Append, last bool, mustSync *bool) (err error) {
	if mutant.Is(mutant.HardStateLater) {
		var late func() error
		appends, late = w.hardStatesLater(appends)
		defer func() { err = errors.Join(err, late()) }()
	}
	if slices.ContainsFunc(appends, func(a raftgroup.Append) bool { return a.ReplicaID != 0 || a.Destroy != 0 }) {
		w.s.births.Lock()
		defer w.s.births.Unlock()
	}
	b := w.s.eng.NewBatch()
	need, err := w.appender.write(b, appends)
	if err != nil {
		b.Close()
		return err
	}
	*mustSync = *mustSync || need
	if !*mustSync || !last {
		defer b.Close()
		if err := b.CommitNoSync(); err != nil {
			return err
		}
		if last {
			w.syncer.put(pendingSync{seq: seq})
		}
		return nil
	}
	began := w.s.Now()
	wait, err := b.CommitSync()
	if err != nil {
		b.Close()
		return err
	}
	w.syncer.put(pendingSync{seq: seq, wait: wait, began: began})
	return nil
}

// frameBuilder makes one frame for each node of the messages of a pass.
type frameBuilder struct {
	order  []base.NodeID
	frames map[base.NodeID][]byte
}

// send encodes and sends. What the transport does not take is lost; Raft is told which replicas are out of reach.
func (f *frameBuilder) send(s *Store, ms []raftgroup.Message) {
	if f.frames == nil {
		f.frames = make(map[base.NodeID][]byte)
	}
	for i := range ms {
		m := &ms[i]
		frame, ok := f.frames[m.ToNode]
		if !ok {
			f.order = append(f.order, m.ToNode)
		}
		if len(frame) > base.MaxFrameBytes/2 {
			s.sendFrame(m.ToNode, frame)
			frame = nil
		}
		frame, err := appendRaftMessage(frame, m)
		if err != nil {
			s.fatal(err)
			return
		}
		f.frames[m.ToNode] = frame
	}
	for _, to := range f.order {
		s.sendFrame(to, f.frames[to])
	}
	f.order = f.order[:0]
	clear(f.frames)
}
