package raftgroup

// String is the role's name.
func (r Role) String() string {
	return [...]string{Follower: "follower", Candidate: "candidate", Leader: "leader", Learner: "learner"}[r]
}
