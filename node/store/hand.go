package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// Hand is a store without goroutines: a simulator turns it. What the store's goroutines do between them when Start runs it,
// its caller does here in whatever order and at whatever time it likes: a pass of the loops, the end of a sync, an apply, a
// snapshot on its way. It is used by one goroutine.
type Hand struct {
	s     *Store
	sends []raftgroup.Message
	wake  []base.Instant // of each loop
	waits []*Sync        // not ended yet, in order
}

// Sync is a batch that was committed and is not known to be on disk.
type Sync struct {
	w *worker
	pendingSync
}

// Quick says that the batch need not be waited for: only those before it.
func (y *Sync) Quick() bool { return y.wait == nil }

// StartByHand loads the replicas that the engine holds. Frames leave through t from then on.
func (s *Store) StartByHand(t transport.Transport) (*Hand, error) {
	h := &Hand{s: s, wake: make([]base.Instant, len(s.workers))}
	s.snapshots.byHand = func(m raftgroup.Message) { h.sends = append(h.sends, m) }
	s.snapshots.rate = rate.NewLimiter(rate.Inf, 0)
	s.compactor.rate = rate.NewLimiter(rate.Inf, 0)
	s.supports.start = func(probe func()) { probe() }
	for _, w := range s.workers {
		w.applier.byHand = true
	}
	ids, err := s.open(t)
	if err != nil {
		return nil, err
	}
	s.begin(ids)
	return h, nil
}

// Due says whether a pass has something to do at now.
func (h *Hand) Due(now base.Instant) bool {
	for i, w := range h.s.workers {
		if len(w.box.signal) > 0 || h.wake[i] <= now {
			return true
		}
	}
	return false
}

// Pass steps each loop that is due once. watch is shown the effects before they are carried out. It returns when the next
// pass is due if nothing comes.
func (h *Hand) Pass(watch func(*raftgroup.Effects)) (wake base.Instant, err error) {
	wake = base.Never
	for i, w := range h.s.workers {
		due := h.wake[i] <= h.s.Now()
		select {
		case <-w.box.signal:
			due = true
		default:
		}
		if due {
			if h.wake[i], err = w.pass(watch); err != nil {
				h.s.fatal(err)
				return base.Never, err
			}
		}
		wake = min(wake, h.wake[i])
	}
	return wake, nil
}

// Syncs returns the batches that were committed since it was last asked, in order, for Synced.
func (h *Hand) Syncs() (out []*Sync) {
	for _, w := range h.s.workers {
		w.syncer.mu.Lock()
		for _, p := range w.syncer.queue {
			out = append(out, &Sync{w, p})
		}
		w.syncer.queue = w.syncer.queue[:0]
		w.syncer.mu.Unlock()
	}
	h.waits = append(h.waits, out...)
	return out
}

// Synced makes the first batch that waits durable and tells its loop. Syncs end in the order in which they began.
func (h *Hand) Synced(y *Sync) error {
	if len(h.waits) == 0 || h.waits[0] != y {
		return errors.New("syncs end in the order in which they began")
	}
	h.waits = h.waits[1:]
	if y.wait != nil {
		if err := y.wait(); err != nil {
			h.s.fatal(err)
			return err
		}
		h.s.supports.synced(y.began, y.probe)
	}
	if y.told != nil {
		y.told()
	}
	if !y.ofLoop() {
		return nil
	}
	y.w.box.put(func(ev *raftgroup.Events) { ev.Durable = append(ev.Durable, raftgroup.Durable{Seq: y.seq}) })
	return nil
}

// Applies says whether committed entries wait to be applied, or somebody to be told how a replica is; Apply does so.
func (h *Hand) Applies() bool {
	for _, w := range h.s.workers {
		if len(w.applier.queue)+len(w.applier.teller.asked) > 0 {
			return true
		}
	}
	return false
}

// Apply applies what waits. An error stops the store, which OnFatal tells.
func (h *Hand) Apply() {
	for _, w := range h.s.workers {
		w.applier.once()
	}
}

// Support does what is due of the support between nodes, and returns when it is to be called again.
func (h *Hand) Support() (next base.Instant) {
	select {
	case <-h.s.supports.wake:
	default:
	}
	return h.s.supports.pass()
}

// SupportDue says whether Support is to be called earlier than it said.
func (h *Hand) SupportDue() bool { return len(h.s.supports.wake) > 0 }

// Expire ends the requests whose time is over.
func (h *Hand) Expire() {
	h.s.waiters.expire(h.s.Now())
	h.s.runs.expire(h.s.Now())
}

// Compact removes what compactions hid, if there is anything.
func (h *Hand) Compact() {
	select {
	case <-h.s.compactor.wake:
	default:
		return
	}
	for _, id := range h.s.Ranges() {
		if err := h.s.compactor.compact(id); err != nil {
			h.s.fatal(err)
			return
		}
	}
}

// Status is Store.Status, at once.
func (h *Hand) Status(id base.RangeID) (raftgroup.Status, bool) {
	return h.s.worker(id).loop.Status(id)
}

// Stop ends the process as a kill does: nobody who waits is told anything. The engine is the caller's to close.
func (h *Hand) Stop() {
	h.s.snapshots.stop()
	h.s.compactor.cancel()
	for _, y := range append(h.waits, h.Syncs()...) {
		if y.wait != nil {
			_ = y.wait() // the engine's batch is released; the process is gone
		}
	}
	h.waits = nil
	h.s.cache.close()
}

// Sends returns the snapshots that the loops want sent since it was last asked. The end of each is told by Sent.
func (h *Hand) Sends() []raftgroup.Message {
	out := h.sends
	h.sends = nil
	return out
}

// Sent tells a loop how the sending of a snapshot ended.
func (h *Hand) Sent(m raftgroup.Message, ok bool) {
	h.s.admin(m.Range, raftgroup.Admin{Range: m.Range, Sent: &raftgroup.SnapshotSent{To: m.ToReplica, OK: ok}})
}

// Parcel is a snapshot as it goes over the wire: an offer and the content of its files.
type Parcel struct {
	From  base.NodeID
	Offer *rangepb.SnapshotOffer
	Files [][]byte
}

// Bytes is how much there is to send.
func (p *Parcel) Bytes() (n int) {
	for _, f := range p.Files {
		n += len(f)
	}
	return n
}

// Pack takes the state that a snapshot message is for, at this instant.
func (h *Hand) Pack(m raftgroup.Message) (*Parcel, error) {
	token := fmt.Sprintf("%d-%d-%d", h.s.node, m.Range, h.s.nextID.Add(1))
	dir := filepath.Join(h.s.eng.StagingDir(), "out-"+token)
	defer h.s.snapshots.remove(dir)
	offer, files, err := h.s.snapshots.prepare(m, token, dir)
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	p := &Parcel{From: h.s.node, Offer: offer}
	for _, f := range files {
		data, err := readWhole(f)
		if err != nil {
			return nil, err
		}
		p.Files = append(p.Files, data)
	}
	return p, nil
}

func readWhole(f engine.File) ([]byte, error) {
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, n)
	if _, err := f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}

// Deliver gives the first bytes of a parcel to this store, in chunks of the given size, as a stream that then broke; all
// of them if upTo is Bytes or more. A later Deliver goes on where the one before ended.
func (h *Hand) Deliver(p *Parcel, upTo, chunk int) error {
	bs := &parcelStream{p: p, left: upTo, chunk: chunk, whole: upTo >= p.Bytes()}
	return h.s.HandleSnapshot(context.Background(), p.From, bs)
}

// parcelStream is the sender's end of a bulk stream that answers by itself.
type parcelStream struct {
	p           *Parcel
	left, chunk int
	whole       bool

	begun, done  bool
	file, offset uint64
	refused      string
}

var errCut = errors.New("the stream broke")

// Send takes what the receiver says.
func (b *parcelStream) Send(raw []byte) error {
	m := &rangepb.SnapshotMessage{}
	if err := proto.Unmarshal(raw, m); err != nil {
		return err
	}
	if r := m.GetResume(); r != nil {
		b.file, b.offset, b.refused = r.File, r.Offset, r.Refused
		if b.refused != "" {
			return &refusedError{b.refused}
		}
	}
	return nil
}

// Recv gives the receiver the offer, chunks, and the end.
func (b *parcelStream) Recv() ([]byte, error) {
	if !b.begun {
		b.begun = true
		return proto.Marshal(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Offer{Offer: b.p.Offer}})
	}
	for b.file < uint64(len(b.p.Files)) && b.offset >= uint64(len(b.p.Files[b.file])) {
		b.file, b.offset = b.file+1, 0
	}
	if b.file == uint64(len(b.p.Files)) {
		if b.done {
			return nil, io.EOF
		}
		b.done = true
		return proto.Marshal(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Done{Done: &rangepb.SnapshotDone{}}})
	}
	rest := b.p.Files[b.file][b.offset:]
	if !b.whole {
		rest = rest[:min(len(rest), b.left)]
	}
	if len(rest) == 0 {
		return nil, errCut
	}
	part := rest[:min(len(rest), b.chunk)]
	c := &rangepb.SnapshotChunk{File: b.file, Offset: b.offset, Data: part, Checksum: xxhash.Sum64(part)}
	b.offset += uint64(len(part))
	b.left -= len(part)
	return proto.Marshal(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Chunk{Chunk: c}})
}

// CloseSend implements transport.BulkStream.
func (b *parcelStream) CloseSend() error { return nil }

var _ transport.BulkStream = (*parcelStream)(nil)

// Fatal stops the store as an error of its disk does.
func (s *Store) Fatal(err error) { s.fatal(err) }
