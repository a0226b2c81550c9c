package store

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/raftgroup/support"
)

// Field numbers of rangepb.RaftFrame and RaftMessage: frames are written field by field into one buffer, so that
// an entry's bytes are copied once on their way to a peer. TestWireAgreesWithProto holds them to range.proto.
const (
	fieldMessages    = 1
	fieldRange       = 1
	fieldFromReplica = 2
	fieldToReplica   = 3
	fieldRaft        = 4
	fieldTooOld      = 5
	fieldFort        = 6
)

// appendRaftMessage appends m as one more message of the frame.
func appendRaftMessage(frame []byte, m *raftgroup.Message) ([]byte, error) {
	size := protowire.SizeTag(fieldRange) + protowire.SizeVarint(uint64(m.Range)) +
		protowire.SizeTag(fieldFromReplica) + protowire.SizeVarint(uint64(m.FromReplica)) +
		protowire.SizeTag(fieldToReplica) + protowire.SizeVarint(uint64(m.ToReplica))
	raftSize := 0
	if m.Raft != nil {
		raftSize = proto.Size(m.Raft)
		size += protowire.SizeTag(fieldRaft) + protowire.SizeBytes(raftSize)
	}
	if m.TooOld != 0 {
		size += protowire.SizeTag(fieldTooOld) + protowire.SizeVarint(uint64(m.TooOld))
	}
	var fort []byte
	if m.Fort != nil {
		var err error
		if fort, err = proto.Marshal(fortification(m.Fort)); err != nil {
			return nil, err
		}
		size += protowire.SizeTag(fieldFort) + protowire.SizeBytes(len(fort))
	}
	frame = protowire.AppendTag(frame, fieldMessages, protowire.BytesType)
	frame = protowire.AppendVarint(frame, uint64(size))
	frame = appendUint(frame, fieldRange, uint64(m.Range))
	frame = appendUint(frame, fieldFromReplica, uint64(m.FromReplica))
	frame = appendUint(frame, fieldToReplica, uint64(m.ToReplica))
	if m.Raft != nil {
		frame = protowire.AppendTag(frame, fieldRaft, protowire.BytesType)
		frame = protowire.AppendVarint(frame, uint64(raftSize))
		var err error
		// UseCachedSize: proto.Size above has just computed it, and nobody changes a message that leaves a loop.
		if frame, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(frame, m.Raft); err != nil {
			return nil, err
		}
	}
	if m.TooOld != 0 {
		frame = appendUint(frame, fieldTooOld, uint64(m.TooOld))
	}
	if m.Fort != nil {
		frame = protowire.AppendBytes(protowire.AppendTag(frame, fieldFort, protowire.BytesType), fort)
	}
	return frame, nil
}

func fortification(f *raftgroup.FortMessage) *rangepb.Fortification {
	return &rangepb.Fortification{
		Kind: rangepb.FortificationKind(f.Kind), Term: f.Term, Incarnation: uint64(f.Incarnation),
		TokenIncarnation: uint64(f.Token.Incarnation), TokenEpoch: f.Token.Epoch,
	}
}

func decodeFort(f *rangepb.Fortification) (*raftgroup.FortMessage, error) {
	kind := raftgroup.FortKind(f.Kind)
	if int32(kind) != int32(f.Kind) || kind < raftgroup.FortAsk || kind > raftgroup.FortHeard || f.Term == 0 {
		return nil, fmt.Errorf("a word about a lease of kind %d and term %d", f.Kind, f.Term)
	}
	return &raftgroup.FortMessage{
		Kind: kind, Term: f.Term, Incarnation: base.Incarnation(f.Incarnation),
		Token: support.Token{Incarnation: base.Incarnation(f.TokenIncarnation), Epoch: f.TokenEpoch},
	}, nil
}

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// decodeRaftFrame is the inverse for what came from a peer. The messages share no memory with frame.
func decodeRaftFrame(frame []byte, from, to base.NodeID) ([]raftgroup.Message, error) {
	var f rangepb.RaftFrame
	if err := proto.Unmarshal(frame, &f); err != nil {
		return nil, fmt.Errorf("raft frame from %s: %w", from, err)
	}
	out := make([]raftgroup.Message, 0, len(f.Messages))
	for _, m := range f.Messages {
		g := raftgroup.Message{
			Range: base.RangeID(m.RangeId), FromNode: from, ToNode: to,
			FromReplica: base.ReplicaID(m.FromReplica), ToReplica: base.ReplicaID(m.ToReplica),
			TooOld: base.ReplicaID(m.TooOldNextReplicaId),
		}
		if g.Range == 0 || g.FromReplica == 0 || g.ToReplica == 0 {
			return nil, fmt.Errorf("a message from %s names no range or no replica", from)
		}
		if m.Fortification != nil {
			var err error
			if g.Fort, err = decodeFort(m.Fortification); err != nil {
				return nil, fmt.Errorf("%s: message from %s: %w", g.Range, from, err)
			}
		} else if g.TooOld == 0 {
			g.Raft = &raftpb.Message{}
			if err := proto.Unmarshal(m.Raft, g.Raft); err != nil {
				return nil, fmt.Errorf("raft message from %s for %s: %w", from, g.Range, err)
			}
			if err := checkRaftMessage(&g); err != nil {
				return nil, err
			}
		}
		out = append(out, g)
	}
	return out, nil
}

// checkRaftMessage refuses what no peer of ours sends: messages that Raft keeps for its own storage threads, that speak
// for another replica than the envelope's, or whose entries no log could hold. Raft panics at some of them.
func checkRaftMessage(m *raftgroup.Message) error {
	switch m.Raft.GetType() {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgSnap, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp, raftpb.MsgTimeoutNow:
	default:
		return fmt.Errorf("%s: a %s message cannot come from another node (%s)", m.Range, m.Raft.GetType(), m.FromNode)
	}
	if m.Raft.GetFrom() != uint64(m.FromReplica) || m.Raft.GetTo() != uint64(m.ToReplica) || m.FromReplica == m.ToReplica {
		return fmt.Errorf("%s: message from %s: envelope and content do not name the same two replicas", m.Range, m.FromNode)
	}
	switch reads := m.Raft.GetType() == raftpb.MsgReadIndex; {
	case m.Raft.GetTerm() == 0 && !reads:
		return fmt.Errorf("%s: message from %s: without a term Raft takes it for one of its own", m.Range, m.FromNode)
	case m.Raft.GetTerm() != 0 && reads:
		return fmt.Errorf("%s: message from %s: a question for a read index has no term", m.Range, m.FromNode)
	}
	if m.Raft.GetType() == raftpb.MsgApp {
		return checkEntries(m)
	}
	return nil
}

func checkEntries(m *raftgroup.Message) error {
	index, term := m.Raft.GetIndex(), m.Raft.GetLogTerm()
	for _, e := range m.Raft.GetEntries() {
		if index+1 == 0 || e.GetIndex() != index+1 || e.GetTerm() < term || e.GetTerm() > m.Raft.GetTerm() {
			return fmt.Errorf("%s: message from %s: entry %d of term %d cannot follow %d of term %d at term %d",
				m.Range, m.FromNode, e.GetIndex(), e.GetTerm(), index, term, m.Raft.GetTerm())
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	return nil
}
