package raftgroup

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

// ends names how each proposal ended, in order.
func ends(failed []Failed) (out []string) {
	for _, f := range failed {
		kind := "?"
		switch {
		case errors.As(f.Err, new(*base.NotLeader)):
			kind = "not leader"
		case errors.As(f.Err, new(*base.Throttled)):
			kind = "throttled"
		case errors.As(f.Err, new(*base.Ambiguous)):
			kind = "ambiguous"
		case errors.As(f.Err, new(*base.RangeMoved)):
			kind = "moved"
		}
		out = append(out, fmt.Sprint(f.ID.Seq, " ", kind))
	}
	return out
}

// An outcome that is not known is ambiguous, one that is certain is not. Broken the one way, a write that was applied is
// told as one that failed, and is made twice; broken the other way, nobody can ever retry.
func TestRuleOutcomesAreWhatIsKnown(t *testing.T) {
	led := func(t *testing.T) *lone {
		l := newLone(t, nil)
		l.lead()
		for seq := uint64(12); seq <= 14; seq++ {
			if f := l.propose(seq).Failed; len(f) > 0 {
				t.Fatal(f)
			}
		}
		return l
	}
	t.Run("another entry is committed in their place", func(t *testing.T) {
		l := led(t)
		eff := l.step(Events{Messages: []Message{message(3, msgHeartbeat(7))}})
		if st, _ := l.n.loop.Status(testRange); st.Role != Follower || len(eff.Failed) > 0 {
			t.Fatalf("lost leadership, and with it %v", ends(eff.Failed))
		}
		// The new leader has 12, and other entries at 13 and 14.
		eff = l.step(Events{Messages: []Message{message(3, msgApp(7, 6, 12, 14, 12))}})
		if len(eff.Failed) > 0 {
			t.Fatalf("overwritten here, which decides nothing: %v", ends(eff.Failed))
		}
		eff = l.step(l.durable()) // 12 is committed: whoever applies it answers
		if len(eff.Applies) != 1 || len(eff.Failed) > 0 {
			t.Fatalf("%d to apply, failed %v", len(eff.Applies), ends(eff.Failed))
		}
		eff = l.step(Events{Messages: []Message{message(3, msgApp(7, 7, 14, 14, 14))}})
		if got := ends(eff.Failed); !slices.Equal(got, []string{"13 not leader", "14 not leader"}) {
			t.Fatalf("committed in their place: %v", got)
		}
		var nl *base.NotLeader
		if errors.As(eff.Failed[0].Err, &nl); nl.HintNode != 3 || nl.HintReplica != 3 {
			t.Errorf("the hint is %+v", nl)
		}
	})
	t.Run("a snapshot takes their place", func(t *testing.T) {
		l := led(t)
		eff := l.step(Events{Admin: []Admin{l.snapshot(7, 100)}})
		if got := ends(eff.Failed); !slices.Equal(got, []string{"12 ambiguous", "13 ambiguous", "14 ambiguous"}) {
			t.Fatal(got)
		}
	})
	t.Run("the replica is removed", func(t *testing.T) {
		l := led(t)
		eff := l.step(Events{Messages: []Message{{Range: testRange, FromNode: 2, FromReplica: 2, ToReplica: 1, TooOld: 5}}})
		if got := ends(eff.Failed); !slices.Equal(got, []string{"12 ambiguous", "13 ambiguous", "14 ambiguous"}) {
			t.Fatal(got)
		}
	})
	t.Run("a transfer is under way", func(t *testing.T) {
		l := led(t)
		l.step(Events{Admin: []Admin{{Range: testRange, Transfer: 2}}})
		if got := ends(l.propose(15).Failed); !slices.Equal(got, []string{"15 throttled"}) {
			t.Fatal(got)
		}
	})
	t.Run("too much is not committed", func(t *testing.T) {
		l := newLone(t, func(c *Config) { c.MaxUncommittedBytes = 100 })
		l.lead()
		var all []string
		for seq := range uint64(10) {
			all = append(all, ends(l.propose(seq).Failed)...)
		}
		if len(all) == 0 || len(all) == 10 || all[len(all)-1] != "9 throttled" {
			t.Fatal(all)
		}
		l.commit(11 + uint64(10-len(all)))
		if got := ends(l.propose(10).Failed); len(got) > 0 {
			t.Fatalf("when there is room again: %v", got)
		}
	})
	t.Run("not here, not the leader", func(t *testing.T) {
		l := newLone(t, nil)
		eff := l.step(Events{Proposals: []Proposal{{Range: 99, ID: ProposalID{1, 1}}, {Range: testRange, ID: ProposalID{1, 2}}}})
		if got := ends(eff.Failed); !slices.Equal(got, []string{"1 moved", "2 not leader"}) {
			t.Fatal(got)
		}
	})
	t.Run("a change that Raft does not take", func(t *testing.T) {
		l := led(t)
		leave := &raftpb.ConfChangeV2{} // and there is no joint configuration
		eff := l.step(Events{Proposals: []Proposal{
			{Range: testRange, ID: ProposalID{1, 20}}, {Range: testRange, ID: ProposalID{1, 21}, Change: leave}, {Range: testRange, ID: ProposalID{1, 22}},
		}})
		if got := ends(eff.Failed); !slices.Equal(got, []string{"21 throttled"}) {
			t.Fatal(got)
		}
	})
}

// The table of proposals holds what may still be decided, in the order of the log, over two leaderships too.
func TestProposalsOfTwoLeaderships(t *testing.T) {
	var p proposals
	for _, x := range []placed{{10, 5, ProposalID{1, 1}}, {11, 5, ProposalID{1, 2}}, {12, 5, ProposalID{1, 3}}, {11, 7, ProposalID{1, 4}}} {
		p.place(x)
	}
	refused := func() error { return &base.NotLeader{} }
	terms := map[uint64]uint64{10: 5, 11: 8, 12: 8}
	at := func(i uint64) (uint64, error) { return terms[i], nil }
	if got := ends(p.resolved(11, at, refused, nil)); !slices.Equal(got, []string{"2 not leader", "4 not leader"}) {
		t.Errorf("at 11: %v", got)
	}
	if got := ends(p.resolved(12, at, refused, nil)); !slices.Equal(got, []string{"3 not leader"}) || len(p.placed) > 0 {
		t.Errorf("at 12: %v; left %v", got, p.placed)
	}
}

// All that is proposed to a range in a step is one append and one message to each follower.
func TestProposalsOfAStepGoTogether(t *testing.T) {
	l := newLone(t, nil)
	l.lead()
	var ps []Proposal
	for i := range uint64(20) {
		ps = append(ps, Proposal{Range: testRange, ID: ProposalID{1, i}, Data: []byte{byte(i)}})
	}
	eff := l.step(Events{Proposals: ps})
	if len(eff.Appends) != 1 || len(eff.Appends[0].Entries) != 20 || !slices.Equal(said(eff), []string{"MsgApp to 2"}) {
		t.Fatalf("%d appends; said %v", len(eff.Appends), said(eff))
	}
	for i, e := range eff.Appends[0].Entries {
		if id, cmd, ok := DecodeProposal(e.GetData()); !ok || id != (ProposalID{1, uint64(i)}) || cmd[0] != byte(i) {
			t.Fatalf("entry %d is %v %v", i, id, cmd)
		}
	}
}

func read(ids ...ReadID) (ev Events) {
	for _, id := range ids {
		ev.Reads = append(ev.Reads, Read{testRange, id})
	}
	return ev
}

// answers says how each read ended.
func (l *lone) answers(eff *Effects) (out []string) {
	for _, r := range eff.ReadsReady {
		end := "ready"
		if r.Err != nil {
			end = "refused"
			if !errors.As(r.Err, new(*base.NotLeader)) {
				l.t.Errorf("read %d: %v", r.ID, r.Err)
			}
		}
		out = append(out, fmt.Sprint(r.ID, " ", end))
	}
	return out
}

// ack answers a leader's heartbeat that asks who leads.
func ack(eff *Effects) Events {
	for _, m := range eff.Messages {
		if m.Raft.GetType() == raftpb.MsgHeartbeat && m.ToReplica == 2 {
			return Events{Messages: []Message{message(2, &raftpb.Message{
				Type: raftpb.MsgHeartbeatResp.Enum(), Term: new(uint64(6)), Context: m.Raft.Context,
			})}}
		}
	}
	return Events{}
}

// A read is answered when a majority still took this replica for the leader after the read came, and what was committed
// then is applied here. Broken, it misses a write that was acknowledged before it.
func TestRuleReadsSeeWhatWasCommitted(t *testing.T) {
	l := newLone(t, nil)
	l.lead()
	l.propose(12)
	l.step(l.durable())
	l.step(Events{Messages: []Message{message(2, msgAppResp(6, 12))}}) // 12 is committed, and not applied
	eff := l.step(read(1, 2))
	if got := l.answers(eff); len(got) > 0 {
		t.Fatalf("before anybody was asked: %v", got)
	}
	if eff = l.step(ack(eff)); len(eff.ReadsReady) > 0 {
		t.Fatalf("before it is applied: %v", l.answers(eff))
	}
	eff = l.step(Events{Applied: []Applied{{Range: testRange, Index: 12}}})
	if got := l.answers(eff); !slices.Equal(got, []string{"1 ready", "2 ready"}) {
		t.Fatal(got)
	}
}

// A new leader does not know what was committed before it until it has applied an entry of its own. Broken, it answers
// from the state before the last write.
func TestRuleANewLeaderReadsAfterItsFirstEntry(t *testing.T) {
	l := newLone(t, nil)
	l.elect()
	eff := l.step(read(1))
	for _, m := range eff.Messages {
		if m.Raft.GetType() == raftpb.MsgHeartbeat {
			t.Fatalf("it asks: %v", said(eff))
		}
	}
	l.step(Events{Messages: []Message{message(2, msgAppResp(6, 11))}})
	eff = l.step(Events{Applied: []Applied{{Range: testRange, Index: 11}}})
	if eff = l.step(ack(eff)); !slices.Equal(l.answers(eff), []string{"1 ready"}) {
		t.Fatal(l.answers(eff))
	}
	// One voter needs to ask nobody, and Raft would answer at once. It has to wait all the same.
	l = newLone(t, nil)
	l.n.disk.written[testRange].desc = descriptor(testRange, 1)
	l.restart()
	l.step(Events{Admin: []Admin{{Range: testRange, Campaign: true}}})
	l.step(l.durable())
	ask := message(4, &raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), Entries: []*raftpb.Entry{{Data: []byte("a learner's")}}})
	ev := read(1)
	ev.Messages = []Message{ask}
	if eff = l.step(ev); len(eff.ReadsReady)+len(eff.Messages) > 0 {
		t.Fatalf("before its first entry: %v, %v", l.answers(eff), said(eff))
	}
	l.step(l.durable())
	if eff = l.step(Events{Applied: []Applied{{Range: testRange, Index: 11}}}); !slices.Equal(l.answers(eff), []string{"1 ready"}) {
		t.Fatal(l.answers(eff))
	}
}

// The questions under way are few, and the reads that come meanwhile share the next.
func TestReadsShareQuestions(t *testing.T) {
	l := newLone(t, nil)
	l.lead()
	asked, all := 0, []string{}
	var last *Effects
	for id := range ReadID(100) {
		eff := l.step(read(id))
		all = append(all, l.answers(eff)...)
		if ev := ack(eff); len(ev.Messages) > 0 {
			asked, last = asked+1, &Effects{Messages: slices.Clone(eff.Messages)}
		}
	}
	if asked != base.ReadRounds || len(all) > 0 {
		t.Fatalf("%d questions, answered %v", asked, all)
	}
	eff := l.step(ack(last))
	all = l.answers(eff)
	if eff = l.step(ack(eff)); len(all) != base.ReadRounds || len(eff.ReadsReady) != 100-base.ReadRounds {
		t.Fatalf("%d, then %d of 100", len(all), len(eff.ReadsReady))
	}
}

// No read is forgotten: it ends when the term or the leader changes, when nobody answers, when its answer is not applied
// for longer than anybody waits, when its replica is gone.
func TestReadsEnd(t *testing.T) {
	follower := func(t *testing.T) *lone {
		l := newLone(t, nil)
		l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 11, 10))}})
		l.step(l.durable())
		return l
	}
	refused := []string{"1 refused"}
	for name, do := range map[string]func(l *lone) *Effects{
		"no leader": func(l *lone) *Effects { l.restart(); return l.step(read(1)) },
		"another leader": func(l *lone) *Effects {
			l.step(read(1))
			return l.step(Events{Messages: []Message{message(3, msgHeartbeat(7))}})
		},
		"the leader is forgotten": func(l *lone) *Effects {
			l.w.now = l.w.now.Add(time.Second)
			l.step(read(1))
			return l.step(Events{Messages: []Message{message(3, msgPreVote(7, 6, 11))}})
		},
		"no answer": func(l *lone) *Effects {
			eff := l.step(read(1))
			for end := l.w.now.Add(2 * time.Second); len(eff.ReadsReady) == 0 && l.w.now < end; {
				l.w.now = l.w.now.Add(base.TickInterval)
				eff = l.step(Events{Messages: []Message{message(2, msgHeartbeat(6))}})
			}
			return eff
		},
		"not applied": func(l *lone) *Effects {
			eff := l.step(read(1))
			l.step(Events{Messages: []Message{message(2, &raftpb.Message{
				Type: raftpb.MsgReadIndexResp.Enum(), Term: new(uint64(6)), Index: new(uint64(11)), Entries: eff.Messages[0].Raft.Entries,
			})}})
			l.w.now = l.w.now.Add(base.RequestTimeout - base.TickInterval)
			if eff = l.step(Events{Messages: []Message{message(2, msgHeartbeat(6))}}); len(eff.ReadsReady) > 0 {
				l.t.Fatal("it is given up too early")
			}
			l.w.now = l.w.now.Add(2 * base.TickInterval)
			return l.step(Events{})
		},
		"the replica is gone": func(l *lone) *Effects {
			l.step(read(1))
			return l.step(Events{Messages: []Message{{Range: testRange, FromNode: 2, FromReplica: 2, ToReplica: 1, TooOld: 5}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := follower(t)
			if got := l.answers(do(l)); !slices.Equal(got, refused) {
				t.Errorf("%v", got)
			}
			if g := l.n.loop.groups[testRange]; g != nil && len(g.reads.rounds)+len(g.reads.waiting) > 0 {
				t.Errorf("left: %+v", g.reads)
			}
		})
	}
}

// A follower votes against the leader that it hears, and at once when it has not heard of it for the time of an election.
func TestRuleVotesFollowTheOwnTimer(t *testing.T) {
	l := newLone(t, nil)
	l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 11, 10))}})
	l.step(l.durable())
	ask := Events{Messages: []Message{message(3, msgPreVote(7, 6, 11))}}
	l.w.now = l.w.now.Add(time.Second - 1)
	if eff := l.step(ask); len(eff.Messages) > 0 {
		t.Fatalf("a leader was heard a moment ago: %v", said(eff))
	}
	l.w.now++
	if eff := l.step(ask); !slices.Equal(said(eff), []string{"MsgPreVoteResp to 3"}) || eff.Messages[0].Raft.GetReject() {
		t.Fatalf("no leader was heard for a second: %v", said(eff))
	}
}

// Whoever granted a vote gives the candidate the time of an election. Broken, it campaigns against the leader that it
// just made.
func TestGrantedVoteHoldsTheElectionBack(t *testing.T) {
	l := newLone(t, nil)
	l.w.now = l.n.loop.timers.next() - 1
	l.step(Events{Messages: []Message{message(2, msgVote(6, 5, 10))}})
	if eff := l.step(l.durable()); !slices.Equal(said(eff), []string{"MsgVoteResp to 2"}) {
		t.Fatal(said(eff))
	}
	granted := l.w.now
	for l.w.now < granted.Add(time.Second) {
		eff := l.step(Events{})
		if len(eff.Messages) > 0 {
			t.Fatalf("%s after the vote: %v", l.w.now.Sub(granted), said(eff))
		}
		l.w.now = eff.Wake
	}
	if l.w.now >= granted.Add(2*time.Second) {
		t.Errorf("it waits %s", l.w.now.Sub(granted))
	}
	if eff := l.step(Events{}); !slices.Equal(said(eff), []string{"MsgPreVote to 2", "MsgPreVote to 3"}) {
		t.Errorf("and then: %v", said(eff))
	}
}
