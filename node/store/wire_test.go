package store

import (
	"bytes"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/raftgroup/support"
)

func wireMessages() []raftgroup.Message {
	entry := func(i uint64, data string) *raftpb.Entry {
		return &raftpb.Entry{Index: new(i), Term: new(uint64(7)), Type: raftpb.EntryNormal.Enum(), Data: []byte(data)}
	}
	return []raftgroup.Message{
		{Range: 7, FromReplica: 1, ToReplica: 2, Raft: &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(7)), Index: new(uint64(4)),
			LogTerm: new(uint64(6)), Commit: new(uint64(3)), Entries: []*raftpb.Entry{entry(5, "five"), entry(6, "")},
		}},
		{Range: 1 << 40, FromReplica: 300, ToReplica: 1, TooOld: 4000},
		{Range: 9, FromReplica: 1, ToReplica: 2, Fort: &raftgroup.FortMessage{
			Kind: raftgroup.FortGiven, Term: 7, Incarnation: 3, Token: support.Token{Incarnation: 4, Epoch: 300},
		}},
		{Range: 9, FromReplica: 1, ToReplica: 2, TooOld: 5, Fort: &raftgroup.FortMessage{Kind: raftgroup.FortRelease, Term: 7}},
		{Range: 8, FromReplica: 9, ToReplica: 2, Raft: &raftpb.Message{
			Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(9)), To: new(uint64(2)), Term: new(uint64(1)), Context: []byte{0, 1, 2},
		}},
	}
}

// The encoding that is written by hand is protobuf's own, byte for byte.
func TestWireAgreesWithProto(t *testing.T) {
	var frame []byte
	var err error
	want := &rangepb.RaftFrame{}
	ms := wireMessages()
	for i := range ms {
		frame, err = appendRaftMessage(frame, &ms[i])
		must(t, err)
		m := &rangepb.RaftMessage{
			RangeId: uint64(ms[i].Range), FromReplica: uint64(ms[i].FromReplica), ToReplica: uint64(ms[i].ToReplica),
			TooOldNextReplicaId: uint64(ms[i].TooOld),
		}
		if ms[i].Raft != nil {
			m.Raft = encode(t, ms[i].Raft)
		}
		if f := ms[i].Fort; f != nil {
			m.Fortification = &rangepb.Fortification{
				Kind: rangepb.FortificationKind(f.Kind), Term: f.Term, Incarnation: uint64(f.Incarnation),
				TokenIncarnation: uint64(f.Token.Incarnation), TokenEpoch: f.Token.Epoch,
			}
		}
		want.Messages = append(want.Messages, m)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	must(t, err)
	if !bytes.Equal(frame, raw) {
		t.Fatalf("written by hand\n%x\nby protobuf\n%x", frame, raw)
	}
	got, err := decodeRaftFrame(frame, 3, 4)
	must(t, err)
	for i := range got {
		w := ms[i]
		w.FromNode, w.ToNode = 3, 4
		if got[i].Range != w.Range || got[i].FromReplica != w.FromReplica || got[i].ToReplica != w.ToReplica ||
			got[i].FromNode != 3 || got[i].ToNode != 4 || got[i].TooOld != w.TooOld || !proto.Equal(got[i].Raft, w.Raft) ||
			(got[i].Fort == nil) != (w.Fort == nil) || w.Fort != nil && *got[i].Fort != *w.Fort {
			t.Errorf("message %d: %+v, want %+v", i, got[i], w)
		}
	}
	before := proto.Clone(got[0].Raft)
	clear(frame)
	if !proto.Equal(before, got[0].Raft) {
		t.Error("a message shares memory with its frame")
	}
}

func TestWireRefuses(t *testing.T) {
	for name, change := range map[string]func(*raftgroup.Message){
		"hup":                func(m *raftgroup.Message) { m.Raft.Type = raftpb.MsgHup.Enum() },
		"proposal":           func(m *raftgroup.Message) { m.Raft.Type = raftpb.MsgProp.Enum() },
		"storage":            func(m *raftgroup.Message) { m.Raft.Type = raftpb.MsgStorageAppendResp.Enum() },
		"transfer":           func(m *raftgroup.Message) { m.Raft.Type = raftpb.MsgTransferLeader.Enum() },
		"unknown type":       func(m *raftgroup.Message) { m.Raft.Type = raftpb.MessageType(77).Enum() },
		"another sender":     func(m *raftgroup.Message) { m.FromReplica = 5 },
		"another receiver":   func(m *raftgroup.Message) { m.ToReplica = 5 },
		"no term":            func(m *raftgroup.Message) { m.Raft.Term, m.Raft.Entries = nil, nil },
		"no range":           func(m *raftgroup.Message) { m.Range = 0 },
		"nobody":             func(m *raftgroup.Message) { m.FromReplica, m.Raft.From = 0, nil },
		"to nobody":          func(m *raftgroup.Message) { m.ToReplica, m.Raft.To = 0, nil },
		"to itself":          func(m *raftgroup.Message) { m.FromReplica, m.Raft.From = 2, new(uint64(2)) },
		"entries with a gap": func(m *raftgroup.Message) { m.Raft.Entries[1].Index = new(uint64(8)) },
		"entries that wrap": func(m *raftgroup.Message) {
			m.Raft.Index = new(^uint64(0))
			m.Raft.Entries[0].Index, m.Raft.Entries[1].Index = new(uint64(0)), new(uint64(1))
		},
		"terms that go back":   func(m *raftgroup.Message) { m.Raft.Entries[1].Term = new(uint64(6)) },
		"a term of its future": func(m *raftgroup.Message) { m.Raft.Entries[1].Term = new(uint64(8)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := wireMessages()[0]
			change(&m)
			frame, err := appendRaftMessage(nil, &m)
			must(t, err)
			if _, err := decodeRaftFrame(frame, 1, 2); err == nil {
				t.Error("taken")
			}
		})
	}
}

// Whatever bytes come, what reaches a loop was understood, and is said again in the same words.
func FuzzRaftFrame(f *testing.F) {
	var frame []byte
	for _, m := range wireMessages() {
		frame, _ = appendRaftMessage(frame, &m)
		one, _ := appendRaftMessage(nil, &m)
		f.Add(one)
	}
	f.Add(frame)
	f.Add([]byte{0x0a, 0x00})
	f.Fuzz(func(t *testing.T, raw []byte) {
		ms, err := decodeRaftFrame(raw, 1, 2)
		if err != nil {
			return
		}
		var again []byte
		for i := range ms {
			if ms[i].Range == 0 || ms[i].ToReplica == 0 || ms[i].Raft == nil && ms[i].TooOld == 0 && ms[i].Fort == nil || ms[i].Raft != nil && ms[i].Fort != nil {
				t.Fatalf("%+v reaches a loop", ms[i])
			}
			if again, err = appendRaftMessage(again, &ms[i]); err != nil {
				t.Fatal(err)
			}
		}
		twice, err := decodeRaftFrame(again, 1, 2)
		if err != nil || len(twice) != len(ms) {
			t.Fatalf("said again it is not understood: %v", err)
		}
	})
}
