package store

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
)

// snapshots moves the states of ranges between nodes as table files: exported from an engine snapshot
// (snapshot_send.go), sent in chunks over a bulk stream, received into the staging folder (snapshot_recv.go), and
// installed here together with the raft state, all or nothing.
type snapshots struct {
	s      *Store
	out    *semaphore.Weighted
	in     *semaphore.Weighted
	rate   *rate.Limiter // bytes sent, over all snapshots
	read   *rate.Limiter // bytes exported, over all snapshots: a core would export many times what may be sent
	ctx    context.Context
	cancel context.CancelFunc

	byHand func(raftgroup.Message) // set: it sends, and no goroutine does; see Hand

	mu      sync.Mutex
	staged  map[string]*staged // received or being received, by token
	sending map[sendKey]*sendProgress
	stats   SnapshotStats
}

// SnapshotStats counts since the start.
type SnapshotStats struct {
	Sent, SendFailed, Received, Installed, Resumed uint64
	BytesSent, BytesReceived                       uint64
	Sending, Receiving                             uint32 // now
}

type sendKey struct {
	id base.RangeID
	to base.ReplicaID
}

// sendProgress is how far a snapshot is that is being sent: nothing is known of its size before it is exported.
type sendProgress struct{ sent, size atomic.Uint64 }

// Sending is how many bytes of a range's snapshots under way from here were sent, and how many there are.
func (s *Store) Sending(id base.RangeID) (sent, size uint64) {
	s.snapshots.mu.Lock()
	defer s.snapshots.mu.Unlock()
	for key, p := range s.snapshots.sending {
		if key.id == id {
			sent, size = sent+p.sent.Load(), size+p.size.Load()
		}
	}
	return sent, size
}

// Receiving are the ranges of which snapshots come in here now, or wait to be installed.
func (s *Store) Receiving() (ids []base.RangeID) {
	s.snapshots.mu.Lock()
	defer s.snapshots.mu.Unlock()
	for _, st := range s.snapshots.staged {
		if st.busy && !slices.Contains(ids, st.id) {
			ids = append(ids, st.id)
		}
	}
	return ids
}

// LimitSnapshots sets how many bytes of snapshots this node sends a second, all together; 0: base's.
func (s *Store) LimitSnapshots(bytesPerSecond uint64) {
	if bytesPerSecond == 0 {
		bytesPerSecond = base.SnapshotBytesPerSecond
	}
	if limit := rate.Limit(bytesPerSecond); s.snapshots.rate.Limit() != limit {
		s.snapshots.rate.SetLimit(limit)
		s.snapshots.read.SetLimit(limit)
	}
}

func newSnapshots(s *Store) *snapshots {
	ctx, cancel := context.WithCancel(context.Background())
	return &snapshots{
		s: s, out: semaphore.NewWeighted(base.SnapshotsInFlight), in: semaphore.NewWeighted(base.SnapshotsInFlight),
		rate: rate.NewLimiter(base.SnapshotBytesPerSecond, base.SnapshotBurstBytes),
		read: rate.NewLimiter(base.SnapshotBytesPerSecond, base.SnapshotBurstBytes), ctx: ctx, cancel: cancel,
		staged: make(map[string]*staged), sending: make(map[sendKey]*sendProgress),
	}
}

func (sn *snapshots) stop() { sn.cancel() }

// Stats returns the counters.
func (s *Store) SnapshotStats() SnapshotStats {
	s.snapshots.mu.Lock()
	defer s.snapshots.mu.Unlock()
	stats := s.snapshots.stats
	stats.Sending = uint32(len(s.snapshots.sending))
	return stats
}

func (sn *snapshots) count(f func(*SnapshotStats)) {
	sn.mu.Lock()
	f(&sn.stats)
	sn.mu.Unlock()
}

// install takes a received snapshot in: what the replica held is gone, the tables' content and the raft state that
// fits them are there, in one ingestion. Called by the worker, with the range's applier drained.
func (sn *snapshots) install(ap *raftgroup.Append) error {
	st := sn.held(ap.Token)
	if st == nil {
		return fmt.Errorf("%s: snapshot %x was to be installed and is not staged", ap.Range, ap.Token)
	}
	remnants, alive, err := sn.takeIn(ap, st)
	if err != nil {
		return err
	}
	if !alive {
		sn.drop(ap.Token)
		return nil
	}
	sn.drop(ap.Token)
	r := sn.s.replica(ap.Range)
	if r == nil || r.sm.AppliedIndex() != ap.Snapshot.GetIndex() || r.sm.AppliedTerm() != ap.Snapshot.GetTerm() {
		return &base.Corruption{Where: ap.Range.String(), Cause: fmt.Errorf("snapshot %x does not hold the state that it names", ap.Token)}
	}
	sn.count(func(c *SnapshotStats) { c.Installed++ })
	sn.s.cfg.Logger.Info("snapshot installed", "range", ap.Range, "index", ap.Snapshot.GetIndex())
	sn.s.cfg.OnApplied(ap.Range)
	sn.s.compactor.signal()
	for _, d := range remnants {
		sn.s.endAbsorbed(d)
	}
	view := sn.s.viewOf(ap.Range, r)
	sn.s.worker(ap.Range).box.put(func(ev *raftgroup.Events) {
		ev.Applied = append(ev.Applied, raftgroup.Applied{Range: ap.Range, Index: view.AppliedIndex, Descriptor: view.Descriptor})
	})
	return nil
}

// takeIn ingests a snapshot's tables with the raft state that fits them. The replicas that are remnants of ranges which the
// snapshot's has taken over end with it, as if this node had applied the merges (merge.go).
// alive is false, and nothing is done, for a replica whose range was taken over here while the snapshot was on its way.
func (sn *snapshots) takeIn(ap *raftgroup.Append, st *staged) (remnants []*metapb.RangeDescriptor, alive bool, err error) {
	sn.s.births.Lock()
	defer sn.s.births.Unlock()
	dead, err := readUint(sn.s.eng, keys.RaftTombstone(ap.Range))
	if err != nil || base.ReplicaID(dead) > ap.ReplicaID {
		return nil, false, err
	}
	if remnants, err = sn.s.remnants(st.desc); err != nil {
		return nil, false, fmt.Errorf("%s: a snapshot that was staged: %w", ap.Range, err) // nobody makes a replica beside one that is staged
	}
	excise, err := sn.s.hull(st.desc, remnants)
	if err != nil {
		return nil, false, err
	}
	own, err := sn.ownTables(st.dir, ap, remnants)
	if err != nil {
		return nil, false, fmt.Errorf("%s: raft state of a snapshot: %w", ap.Range, err)
	}
	if mutant.Is(mutant.SnapshotNotAtomic) {
		if err := sn.ingest(ap.Range, st.paths, excise); err != nil {
			return nil, false, err
		}
		st.paths, excise = nil, keys.UnreplicatedSpan(ap.Range)
	}
	for _, d := range remnants {
		sn.s.hideAbsorbed(base.RangeID(d.RangeId))
	}
	return remnants, true, sn.ingest(ap.Range, append(own, st.paths...), excise)
}

// ingest takes the tables in and shows the new state, while no removal behind a compaction is under way.
func (sn *snapshots) ingest(id base.RangeID, paths []string, excise engine.Span) error {
	sn.s.compactor.step.Lock()
	defer sn.s.compactor.step.Unlock()
	if err := sn.s.eng.Ingest(paths, excise); err != nil {
		return fmt.Errorf("%s: taking a snapshot in: %w", id, err)
	}
	return sn.s.load(id)
}

// ownTables writes the tables that replace the replica's unreplicated state (an empty log that begins after the snapshot, the
// HardState) and leave, of each remnant, its tombstone and none of its replicated state.
func (sn *snapshots) ownTables(dir string, ap *raftgroup.Append, remnants []*metapb.RangeDescriptor) (paths []string, err error) {
	raft := tableBuffer{}
	a := appender{hard: map[base.RangeID]termVote{}}
	_, err = a.writeOne(&raft, &raftgroup.Append{
		Range: ap.Range, ReplicaID: ap.ReplicaID, HardState: ap.HardState,
		Truncate: &raftgroup.TruncatedState{Index: ap.Snapshot.GetIndex(), Term: ap.Snapshot.GetTerm()},
	})
	for _, d := range remnants {
		if err == nil {
			err = raft.Set(keys.RaftTombstone(base.RangeID(d.RangeId)), uintBytes(nil, uint64(deadForEver)))
		}
	}
	if err == nil {
		paths = append(paths, filepath.Join(dir, "raft.sst"))
		err = sn.writeTable(paths[0], keys.UnreplicatedSpan(ap.Range), raft)
	}
	for _, d := range remnants {
		if err == nil {
			paths = append(paths, filepath.Join(dir, fmt.Sprintf("remnant-%d.sst", d.RangeId)))
			err = sn.writeTable(paths[len(paths)-1], keys.RangeLocalSpan(base.RangeID(d.RangeId)), tableBuffer{})
		}
	}
	return paths, err
}

// writeTable writes a table that deletes a span and holds some keys.
func (sn *snapshots) writeTable(path string, clear engine.Span, b tableBuffer) error {
	f, err := sn.s.eng.CreateFile(path)
	if err != nil {
		return err
	}
	tw, err := sn.s.eng.NewTable(f)
	if err != nil {
		f.Close()
		return err
	}
	if err := tw.DeleteRange(clear.Start, clear.End); err != nil {
		tw.Close()
		return err
	}
	if err := b.writeTo(tw); err != nil {
		tw.Close()
		return err
	}
	return tw.Close()
}

// export writes the replicated state of a range, as a snapshot of the engine shows it, to tables in dir.
func (sn *snapshots) export(r engine.Reader, view *apply.View, dir string) ([]string, error) {
	e := exporter{eng: sn.s.eng, dir: dir, pace: func(n int) error { return sn.read.WaitN(sn.ctx, n) }}
	if sn.byHand != nil {
		e.pace = func(int) error { return nil } // whose hand it is has a time of its own
	}
	local := keys.RangeLocalSpan(base.RangeID(view.Descriptor.RangeId))
	for _, span := range apply.Spans(view.Descriptor) {
		// The data span is excised where the tables are taken in; the range's local span is deleted by its table.
		if err := e.span(r, span, string(span.Start) == string(local.Start)); err != nil {
			e.abandon()
			return nil, err
		}
	}
	return e.paths, nil
}

// exporter writes spans to tables of bounded size.
type exporter struct {
	eng   engine.Engine
	dir   string
	paths []string
	open  engine.TableWriter
	pace  func(bytes int) error // waits until so many more may be read
	ahead int                   // bytes that were read since
}

func (e *exporter) span(r engine.Reader, span engine.Span, clear bool) error {
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return err
	}
	defer it.Close()
	if clear {
		if err := e.next(); err != nil {
			return err
		}
		if err := e.open.DeleteRange(span.Start, span.End); err != nil {
			return err
		}
	}
	var last []byte
	if mutant.Is(mutant.SnapshotMissesKeys) && !clear && it.Last() {
		last = bytes.Clone(it.Key()[:keys.Split(it.Key())])
	}
	for ok := it.First(); ok; ok = it.Next() {
		if last != nil && bytes.HasPrefix(it.Key(), last) {
			break
		}
		if e.open == nil || (!clear && e.open.Size() >= base.SnapshotTableBytes) {
			if err := e.next(); err != nil {
				return err
			}
		}
		v, err := it.Value()
		if err != nil {
			return err
		}
		if err := e.open.Set(it.Key(), v); err != nil {
			return err
		}
		if e.ahead += len(it.Key()) + len(v); e.ahead >= base.SnapshotChunkBytes {
			if err := e.rest(); err != nil {
				return err
			}
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	return e.finish()
}

// rest waits until what was read ahead is allowed. A value may be larger than a burst.
func (e *exporter) rest() error {
	for e.ahead > 0 {
		n := min(e.ahead, base.SnapshotBurstBytes)
		if err := e.pace(n); err != nil {
			return err
		}
		e.ahead -= n
	}
	return nil
}

func (e *exporter) next() error {
	if err := e.finish(); err != nil {
		return err
	}
	path := filepath.Join(e.dir, fmt.Sprintf("%06d.sst", len(e.paths)))
	create := e.eng.CreateScratch
	if len(e.paths)*base.SnapshotTableBytes >= base.SnapshotScratchBytes {
		create = e.eng.CreateFile
	}
	f, err := create(path)
	if err != nil {
		return err
	}
	if e.open, err = e.eng.NewTable(f); err != nil {
		f.Close()
		return err
	}
	e.paths = append(e.paths, path)
	return nil
}

func (e *exporter) finish() error {
	if e.open == nil {
		return nil
	}
	tw := e.open
	e.open = nil
	return tw.Close()
}

func (e *exporter) abandon() {
	if e.open != nil {
		_ = e.open.Close() // the folder is deleted; the error that made us give up is what is reported
		e.open = nil
	}
}

// tableBuffer collects the few keys of a raft table, so that they can be written in order.
type tableBuffer struct{ kvs []kv }

type kv struct{ key, value []byte }

// Set implements engine.Writer.
func (b *tableBuffer) Set(key, value []byte) error {
	b.kvs = append(b.kvs, kv{slices.Clone(key), slices.Clone(value)})
	return nil
}

// Delete implements engine.Writer: what a table is taken over is deleted as a whole by its DeleteRange.
func (b *tableBuffer) Delete([]byte) error { return nil }

// DeleteRange implements engine.Writer, see Delete.
func (b *tableBuffer) DeleteRange(_, _ []byte) error { return nil }

func (b *tableBuffer) writeTo(tw engine.TableWriter) error {
	slices.SortFunc(b.kvs, func(x, y kv) int { return bytes.Compare(x.key, y.key) })
	for _, x := range b.kvs {
		if err := tw.Set(x.key, x.value); err != nil {
			return err
		}
	}
	return nil
}
