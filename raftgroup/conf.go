package raftgroup

import (
	"encoding/binary"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// ConfState is the Raft configuration that a descriptor stands for: the one source of who votes. A voter votes in both
// halves of a joint configuration, an incoming replica in the new half only, an outgoing one in the old half only.
func ConfState(d *metapb.RangeDescriptor) *raftpb.ConfState {
	cs := &raftpb.ConfState{AutoLeave: new(false)}
	joint := false
	for _, r := range d.GetReplicas() {
		switch r.Role {
		case metapb.ReplicaRole_REPLICA_ROLE_VOTER:
			cs.Voters = append(cs.Voters, r.ReplicaId)
			cs.VotersOutgoing = append(cs.VotersOutgoing, r.ReplicaId)
		case metapb.ReplicaRole_REPLICA_ROLE_INCOMING:
			cs.Voters = append(cs.Voters, r.ReplicaId)
			joint = true
		case metapb.ReplicaRole_REPLICA_ROLE_OUTGOING:
			cs.VotersOutgoing = append(cs.VotersOutgoing, r.ReplicaId)
			joint = true
		case metapb.ReplicaRole_REPLICA_ROLE_LEARNER:
			cs.Learners = append(cs.Learners, r.ReplicaId)
		}
	}
	if !joint {
		cs.VotersOutgoing = nil
	}
	return cs
}

// sameConf says whether two configurations are the same, whatever the order of their members.
func sameConf(a, b *raftpb.ConfState) bool {
	return sameIDs(a.GetVoters(), b.GetVoters()) && sameIDs(a.GetVotersOutgoing(), b.GetVotersOutgoing()) &&
		sameIDs(append(slices.Clone(a.GetLearners()), a.GetLearnersNext()...), b.GetLearners())
}

func sameIDs(a, b []uint64) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// proposalHeader is the length of a ProposalID before a command's bytes.
const proposalHeader = 16

// EncodeProposal puts the proposal's id before its command: the data of an entry, or the context of a conf change.
func EncodeProposal(id ProposalID, command []byte) []byte {
	b := make([]byte, proposalHeader, proposalHeader+len(command))
	binary.BigEndian.PutUint64(b, uint64(id.Node))
	binary.BigEndian.PutUint64(b[8:], id.Seq)
	return append(b, command...)
}

// DecodeProposal is the inverse. ok is false for data that no proposal made.
func DecodeProposal(data []byte) (id ProposalID, command []byte, ok bool) {
	if len(data) < proposalHeader {
		return ProposalID{}, nil, false
	}
	id.Node = base.NodeID(binary.BigEndian.Uint64(data))
	id.Seq = binary.BigEndian.Uint64(data[8:])
	return id, data[proposalHeader:], true
}
