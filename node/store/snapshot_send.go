package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// send begins to send the range's state to the replica that the message is for; Raft is told how it ended.
func (sn *snapshots) send(m raftgroup.Message) {
	if sn.byHand != nil {
		sn.byHand(m)
		return
	}
	key := sendKey{m.Range, m.ToReplica}
	sn.mu.Lock()
	if sn.sending[key] != nil {
		sn.mu.Unlock()
		return // the one under way ends with a report
	}
	p := &sendProgress{}
	sn.sending[key] = p
	sn.mu.Unlock()
	sn.s.wg.Go(func() {
		err := sn.sendOne(sn.ctx, m, p)
		sn.mu.Lock()
		delete(sn.sending, key)
		sn.mu.Unlock()
		if err != nil {
			sn.count(func(c *SnapshotStats) { c.SendFailed++ })
			sn.s.cfg.Logger.Warn("snapshot not sent", "range", m.Range, "to", m.ToNode, "error", err)
		} else {
			sn.count(func(c *SnapshotStats) { c.Sent++ })
		}
		sn.s.admin(m.Range, raftgroup.Admin{Range: m.Range, Sent: &raftgroup.SnapshotSent{To: m.ToReplica, OK: err == nil}})
	})
}

// sendOne exports once and streams, going on where the receiver says after a stream broke.
func (sn *snapshots) sendOne(ctx context.Context, m raftgroup.Message, p *sendProgress) error {
	if err := sn.out.Acquire(ctx, 1); err != nil {
		return err
	}
	defer sn.out.Release(1)
	token := fmt.Sprintf("%d-%d-%d", sn.s.node, m.Range, sn.s.nextID.Add(1))
	dir := filepath.Join(sn.s.eng.StagingDir(), "out-"+token)
	defer sn.remove(dir)
	offer, files, err := sn.prepare(m, token, dir)
	if err != nil {
		return err
	}
	defer closeAll(files)
	for _, f := range offer.Files {
		p.size.Add(f.Size)
	}
	backoff := base.SnapshotRetryMin
	for attempt := 1; ; attempt++ {
		err := sn.stream(ctx, m.ToNode, offer, files, p)
		var refused *refusedError
		if err == nil || errors.As(err, &refused) || ctx.Err() != nil || attempt == base.SnapshotAttempts {
			return err
		}
		sn.s.cfg.Logger.Info("snapshot stream broke; it will go on", "range", m.Range, "to", m.ToNode, "error", err)
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return ctx.Err()
		}
		backoff *= 2
	}
}

// prepare takes the state at one instant of the engine, writes it to tables, and makes the offer whose raft message
// says exactly what is in them.
func (sn *snapshots) prepare(m raftgroup.Message, token, dir string) (*rangepb.SnapshotOffer, []engine.File, error) {
	es := sn.s.eng.NewSnapshot()
	defer es.Close()
	view, err := apply.ReadView(es, m.Range)
	if err != nil {
		return nil, nil, err
	}
	if view.AppliedIndex < m.Raft.GetSnapshot().GetMetadata().GetIndex() {
		return nil, nil, fmt.Errorf("%s: the engine is at %d, behind what raft wants to send", m.Range, view.AppliedIndex)
	}
	paths, err := sn.export(es, &view, dir)
	if err != nil {
		return nil, nil, err
	}
	msg := proto.CloneOf(m.Raft)
	meta := msg.Snapshot.Metadata
	if mutant.Is(mutant.SnapshotOtherInstant) {
		view.AppliedIndex, view.AppliedTerm = meta.GetIndex(), meta.GetTerm()
	}
	meta.Index, meta.Term, meta.ConfState = new(view.AppliedIndex), new(view.AppliedTerm), raftgroup.ConfState(view.Descriptor)
	raw, err := proto.Marshal(msg)
	if err != nil {
		return nil, nil, err
	}
	offer := &rangepb.SnapshotOffer{
		Token: []byte(token), RangeId: uint64(m.Range), FromReplica: uint64(m.FromReplica), ToReplica: uint64(m.ToReplica),
		Raft: raw, Range: view.Descriptor,
	}
	var files []engine.File
	for _, p := range paths {
		f, err := sn.s.eng.OpenFile(p)
		if err != nil {
			closeAll(files)
			return nil, nil, err
		}
		files = append(files, f)
		size, sum, err := fileSum(f)
		if err != nil {
			closeAll(files)
			return nil, nil, err
		}
		offer.Files = append(offer.Files, &rangepb.SnapshotFile{Size: size, Checksum: sum})
	}
	return offer, files, nil
}

// refusedError: the receiver does not want the snapshot; sending it again would change nothing.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return "refused: " + e.why }

// stream sends what the receiver does not have yet over one stream.
func (sn *snapshots) stream(ctx context.Context, to base.NodeID, offer *rangepb.SnapshotOffer, files []engine.File, p *sendProgress) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bs, err := sn.s.transport.OpenBulk(ctx, to)
	if err != nil {
		return err
	}
	if err := sendMsg(bs, &rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Offer{Offer: offer}}); err != nil {
		return err
	}
	first, err := recvMsg(bs)
	if err != nil {
		return err
	}
	resume := first.GetResume()
	switch {
	case resume == nil:
		return errors.New("the receiver did not answer the offer")
	case resume.Refused != "":
		return &refusedError{resume.Refused}
	case resume.File > uint64(len(files)):
		return fmt.Errorf("the receiver wants to go on at file %d of %d", resume.File, len(files))
	}
	c := &chunker{sn: sn, bs: bs, offer: offer, files: files, file: resume.File, offset: resume.Offset, credits: resume.Credits, progress: p}
	c.skipped()
	if err := c.run(ctx); err != nil {
		return err
	}
	if err := sendMsg(bs, &rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Done{Done: &rangepb.SnapshotDone{}}}); err != nil {
		return err
	}
	for {
		m, err := recvMsg(bs)
		if err != nil {
			return err
		}
		if d := m.GetDone(); d != nil {
			if d.Error != "" {
				return errors.New(d.Error)
			}
			return bs.CloseSend()
		}
	}
}

// chunker sends chunks while it has credits and the node's rate allows.
type chunker struct {
	sn       *snapshots
	bs       transport.BulkStream
	offer    *rangepb.SnapshotOffer
	files    []engine.File
	file     uint64
	offset   uint64
	credits  uint64
	progress *sendProgress
}

// skipped counts what the receiver has of an earlier stream.
func (c *chunker) skipped() {
	n := c.offset
	for _, f := range c.offer.Files[:c.file] {
		n += f.Size
	}
	c.progress.sent.Store(n)
}

func (c *chunker) run(ctx context.Context) error {
	buf := make([]byte, base.SnapshotChunkBytes)
	for c.file < uint64(len(c.files)) {
		size := c.offer.Files[c.file].Size
		if c.offset >= size {
			c.file, c.offset = c.file+1, 0
			continue
		}
		n := min(uint64(len(buf)), size-c.offset)
		for c.credits < n {
			m, err := recvMsg(c.bs)
			if err != nil {
				return err
			}
			if d := m.GetDone(); d != nil {
				return errors.New(d.Error)
			}
			c.credits += m.GetAck().GetCredits()
		}
		if err := c.sn.rate.WaitN(ctx, int(n)); err != nil {
			return err
		}
		if _, err := c.files[c.file].ReadAt(buf[:n], int64(c.offset)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		chunk := &rangepb.SnapshotChunk{File: c.file, Offset: c.offset, Data: buf[:n], Checksum: xxhash.Sum64(buf[:n])}
		if err := sendMsg(c.bs, &rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
		c.sn.count(func(s *SnapshotStats) { s.BytesSent += n })
		c.progress.sent.Add(n)
		c.offset += n
		c.credits -= n
	}
	return nil
}

func fileSum(f engine.File) (size, sum uint64, err error) {
	n, err := f.Size()
	if err != nil {
		return 0, 0, err
	}
	h := xxhash.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, n)); err != nil {
		return 0, 0, err
	}
	return uint64(n), h.Sum64(), nil
}

func closeAll(files []engine.File) {
	for _, f := range files {
		_ = f.Close() // only read from
	}
}

func sendMsg(bs transport.BulkStream, m *rangepb.SnapshotMessage) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return bs.Send(raw)
}

func recvMsg(bs transport.BulkStream) (*rangepb.SnapshotMessage, error) {
	raw, err := bs.Recv()
	if err != nil {
		return nil, err
	}
	m := &rangepb.SnapshotMessage{}
	return m, proto.Unmarshal(raw, m)
}
