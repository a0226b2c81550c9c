package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// staged is a snapshot that is being received, or waits for its replica to install it. A broken stream leaves it as
// it is, and the next stream of the same token goes on from there.
type staged struct {
	token  string
	id     base.RangeID
	dir    string
	paths  []string
	desc   *metapb.RangeDescriptor
	offer  *rangepb.SnapshotOffer
	file   uint64 // what has been received: all files before this one,
	offset uint64 // and this many bytes of it
	busy   bool   // a stream is writing to it, or the loop has it
}

// HandleSnapshot serves one bulk stream on which another node offers a snapshot.
func (s *Store) HandleSnapshot(ctx context.Context, from base.NodeID, bs transport.BulkStream) error {
	first, err := recvMsg(bs)
	if err != nil {
		return err
	}
	offer := first.GetOffer()
	if offer == nil {
		return errors.New("a snapshot stream begins with an offer")
	}
	m, err := s.checkOffer(from, offer)
	if err != nil {
		return sendMsg(bs, resumeMsg(&rangepb.SnapshotResume{Refused: err.Error()}))
	}
	sn := s.snapshots
	if !sn.in.TryAcquire(1) {
		return errors.New("enough snapshots are being received here already")
	}
	defer sn.in.Release(1)
	sn.count(func(c *SnapshotStats) { c.Receiving++ })
	defer sn.count(func(c *SnapshotStats) { c.Receiving-- })
	st, err := sn.stage(offer)
	var refused *refusedError
	if errors.As(err, &refused) {
		return sendMsg(bs, resumeMsg(&rangepb.SnapshotResume{Refused: refused.why}))
	}
	if err != nil {
		return err
	}
	rerr := sn.receive(ctx, bs, st)
	if rerr == nil {
		rerr = sn.verify(st)
	}
	if rerr == nil {
		// What the learner wrote since it was made (its HardState) lies in memory, under the tables. An ingestion over it holds up
		// every commit of this node while the engine begins two new logs; over nothing, it does not.
		rerr = s.eng.Flush()
	}
	if rerr != nil {
		sn.release(st)
		return rerr
	}
	sn.count(func(c *SnapshotStats) { c.Received++ })
	s.admin(m.Range, raftgroup.Admin{Range: m.Range, Received: &raftgroup.ReceivedSnapshot{Message: m, Token: st.token}})
	return sendMsg(bs, &rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Done{Done: &rangepb.SnapshotDone{}}})
}

// checkOffer refuses what cannot be installed here, whatever is sent.
func (s *Store) checkOffer(from base.NodeID, o *rangepb.SnapshotOffer) (raftgroup.Message, error) {
	m := raftgroup.Message{
		Range: base.RangeID(o.RangeId), FromNode: from, ToNode: s.node,
		FromReplica: base.ReplicaID(o.FromReplica), ToReplica: base.ReplicaID(o.ToReplica), Raft: &raftpb.Message{},
	}
	if err := proto.Unmarshal(o.Raft, m.Raft); err != nil {
		return m, fmt.Errorf("its raft message cannot be read: %w", err)
	}
	if m.Raft.GetType() != raftpb.MsgSnap || m.Raft.GetSnapshot().GetMetadata().GetIndex() == 0 {
		return m, errors.New("its raft message is not a snapshot")
	}
	if err := checkRaftMessage(&m); err != nil {
		return m, err
	}
	d := o.Range
	if err := desc.Validate(d); err != nil {
		return m, fmt.Errorf("its descriptor: %w", err)
	}
	if d.RangeId != o.RangeId {
		return m, fmt.Errorf("its descriptor is that of %s", base.RangeID(d.RangeId))
	}
	meta := m.Raft.GetSnapshot().GetMetadata()
	if err := raftgroup.ConfState(d).Equivalent(meta.GetConfState()); err != nil {
		return m, fmt.Errorf("its descriptor and its raft message differ: %w", err)
	}
	if meta.GetIndex() < apply.InitialIndex || meta.GetTerm() < apply.InitialTerm {
		return m, fmt.Errorf("index %d of term %d lies before the beginning of any range", meta.GetIndex(), meta.GetTerm())
	}
	mine := func(r *metapb.Replica) bool {
		return r.ReplicaId == o.ToReplica && base.NodeID(r.NodeId) == s.node
	}
	if !slices.ContainsFunc(d.Replicas, mine) {
		return m, fmt.Errorf("replica %d of %s is not on %s", o.ToReplica, m.Range, s.node)
	}
	if len(o.Token) == 0 || len(o.Token) > 64 || bytes.ContainsAny(o.Token, "/\\.\x00") {
		return m, errors.New("its token is malformed")
	}
	if len(o.Files) == 0 || len(o.Files) > base.SnapshotMaxFiles {
		return m, fmt.Errorf("%d files; between 1 and %d are taken", len(o.Files), base.SnapshotMaxFiles)
	}
	if i := slices.IndexFunc(o.Files, func(f *rangepb.SnapshotFile) bool { return f.GetSize() == 0 }); i >= 0 {
		return m, fmt.Errorf("file %d is empty", i)
	}
	return m, nil
}

// stage finds what an earlier stream of this token left, or begins anew; older remains of the range are deleted.
func (sn *snapshots) stage(o *rangepb.SnapshotOffer) (*staged, error) {
	token := string(o.Token)
	sn.mu.Lock()
	defer sn.mu.Unlock()
	if st := sn.staged[token]; st != nil {
		if st.busy {
			return nil, errors.New("this snapshot is being received already")
		}
		st.busy = true
		sn.stats.Resumed++
		return st, nil
	}
	for t, old := range sn.staged {
		switch {
		case mutant.Is(mutant.SnapshotOverNeighbour):
		case old.busy && old.id != base.RangeID(o.RangeId) && desc.Overlap(old.desc, o.Range):
			return nil, &refusedError{fmt.Sprintf("a snapshot of %s, which holds keys of it, is being taken in here", old.id)}
		case !old.busy && (old.id == base.RangeID(o.RangeId) || desc.Overlap(old.desc, o.Range)):
			delete(sn.staged, t)
			sn.remove(old.dir)
		}
	}
	if _, err := sn.s.remnants(o.Range); err != nil { // last: what was staged a moment ago is a replica by now, or is staged still
		return nil, err
	}
	st := &staged{
		token: token, id: base.RangeID(o.RangeId), desc: o.Range, offer: o, busy: true,
		dir: filepath.Join(sn.s.eng.StagingDir(), "in-"+token),
	}
	for i := range o.Files {
		st.paths = append(st.paths, filepath.Join(st.dir, fmt.Sprintf("%06d.sst", i)))
	}
	sn.staged[token] = st
	return st, nil
}

// receive takes chunks in order until the sender is done.
func (sn *snapshots) receive(ctx context.Context, bs transport.BulkStream, st *staged) error {
	resume := &rangepb.SnapshotResume{File: st.file, Offset: st.offset, Credits: base.SnapshotCreditBytes}
	if err := sendMsg(bs, resumeMsg(resume)); err != nil {
		return err
	}
	var f engine.File
	defer func() {
		if f != nil {
			_ = f.Close() // what was written is checked before it is used
		}
	}()
	open := ^uint64(0)
	taken := uint64(0)
	for {
		m, err := recvMsg(bs)
		if err != nil {
			return err
		}
		if m.GetDone() != nil {
			return nil
		}
		c := m.GetChunk()
		if err := st.checkChunk(c); err != nil {
			return err
		}
		if c.File != open {
			if f, err = sn.openPart(f, st, c.File); err != nil {
				return err
			}
			open = c.File
		}
		if _, err := f.WriteAt(c.Data, int64(c.Offset)); err != nil {
			return err
		}
		n := uint64(len(c.Data))
		sn.count(func(s *SnapshotStats) { s.BytesReceived += n })
		st.file, st.offset = c.File, c.Offset+n
		if taken += n; taken >= base.SnapshotCreditBytes/2 {
			ack := &rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Ack{Ack: &rangepb.SnapshotAck{Credits: taken}}}
			if err := sendMsg(bs, ack); err != nil {
				return err
			}
			taken = 0
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (st *staged) checkChunk(c *rangepb.SnapshotChunk) error {
	switch {
	case c == nil:
		return errors.New("neither a chunk nor the end")
	case c.File >= uint64(len(st.offer.Files)):
		return fmt.Errorf("chunk of file %d of %d", c.File, len(st.offer.Files))
	case c.File == st.file && c.Offset != st.offset,
		c.File != st.file && (c.Offset != 0 || c.File != st.file+1 || st.offset != st.offer.Files[st.file].Size):
		return fmt.Errorf("chunk at %d/%d where %d/%d is due", c.File, c.Offset, st.file, st.offset)
	case c.Offset+uint64(len(c.Data)) > st.offer.Files[c.File].Size:
		return fmt.Errorf("file %d is longer than was offered", c.File)
	case xxhash.Sum64(c.Data) != c.Checksum:
		return &base.Corruption{Where: "snapshot in flight", Cause: fmt.Errorf("checksum of chunk %d/%d", c.File, c.Offset)}
	}
	return nil
}

func (sn *snapshots) openPart(old engine.File, st *staged, file uint64) (engine.File, error) {
	if old != nil {
		if err := old.Sync(); err != nil {
			return old, err
		}
		if err := old.Close(); err != nil {
			return nil, err
		}
	}
	if file == st.file && st.offset > 0 {
		return sn.s.eng.OpenFile(st.paths[file])
	}
	return sn.s.eng.CreateFile(st.paths[file])
}

// verify holds the files against the offer. A damaged one is received again from its start.
func (sn *snapshots) verify(st *staged) error {
	for i, p := range st.paths {
		f, err := sn.s.eng.OpenFile(p)
		if err != nil {
			return err
		}
		size, sum, err := fileSum(f)
		if err == nil {
			err = f.Sync()
		}
		_ = f.Close() // synced, or given up
		if err != nil {
			return err
		}
		if want := st.offer.Files[i]; size != want.Size || sum != want.Checksum {
			st.file, st.offset = uint64(i), 0
			return &base.Corruption{Where: "snapshot received", Cause: fmt.Errorf("file %d is not what was offered", i)}
		}
	}
	return nil
}

// release lets another stream go on with it.
func (sn *snapshots) release(st *staged) {
	sn.mu.Lock()
	st.busy = false
	sn.mu.Unlock()
}

// held returns a staged snapshot, which stays where it is: its span is its own until its range is shown.
func (sn *snapshots) held(token string) *staged {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	return sn.staged[token]
}

// drop deletes a snapshot that Raft did not want, or that is installed.
func (sn *snapshots) drop(token string) {
	sn.mu.Lock()
	st := sn.staged[token]
	delete(sn.staged, token)
	sn.mu.Unlock()
	if st != nil {
		sn.remove(st.dir)
	}
}

func (sn *snapshots) remove(dir string) {
	if err := sn.s.eng.RemoveAll(dir); err != nil {
		sn.s.cfg.Logger.Warn("staged snapshot not deleted; it goes at the next start", "dir", dir, "error", err)
	}
}

func resumeMsg(r *rangepb.SnapshotResume) *rangepb.SnapshotMessage {
	return &rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Resume{Resume: r}}
}
