package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// What planted mistakes (internal/mutant) do that takes more than the place where they are planted. Without the build tag nothing of it is
// in the program.

// early says at once, and takes out of ms, what must wait for a write.
func (l *Loop) early(g *group, ms []*raftpb.Message) []*raftpb.Message {
	var now []*raftpb.Message
	later := slices.DeleteFunc(slices.Clone(ms), func(m *raftpb.Message) bool {
		self := m.GetTo() == uint64(g.replica)
		is := mutant.Is(mutant.VoteBeforeSync) && m.GetType() == raftpb.MsgVoteResp && !self ||
			mutant.Is(mutant.AppendBeforeSync) && m.GetType() == raftpb.MsgAppResp && !self ||
			mutant.Is(mutant.LeaderCountsUnsynced) && m.GetType() == raftpb.MsgAppResp && self
		if is {
			now = append(now, m)
		}
		return is
	})
	l.answer(g, now)
	return later
}

// changeAt has the membership changes among entries take effect before they are committed.
func (g *group) changeAt(entries []*raftpb.Entry) {
	for _, e := range entries {
		cc := &raftpb.ConfChangeV2{}
		if e.GetType() == raftpb.EntryConfChangeV2 && proto.Unmarshal(e.GetData(), cc) == nil {
			g.rn.ApplyConfChange(cc)
		}
	}
}

// refusePlaced says of proposals that are in the log that they never were.
func (l *Loop) refusePlaced(g *group) {
	for _, x := range g.proposals.placed {
		l.fail(x.id, &base.NotLeader{Range: g.id})
	}
	g.proposals.placed = nil
}
