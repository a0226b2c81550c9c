package raftgroup

import (
	"cmp"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/raftgroup/support"
)

// A word that ends a promise must arrive: a fortified replica has no timer, and one that was removed, or that a later leader
// does not know of, hears of nobody else. So a loop owes the word, whatever becomes of the replica here that was to say it,
// and says it again and again until it is answered, or until the promise is over because its node's support has ended.

type owedKey struct {
	id   base.RangeID
	to   base.ReplicaID
	node base.NodeID
}

type owed struct {
	from   base.ReplicaID
	term   uint64
	token  support.Token
	tooOld base.ReplicaID // the replica was removed: ids below this are dead
	at     base.Instant   // when it is said next
	wait   time.Duration
}

// The pauses between two words: the first as long as an answer takes at most, and twice as long each time.
const (
	owedFirst = 100 * time.Millisecond
	owedMost  = 5 * time.Second
)

// owe has the loop say that a promise to a replica of a range here is over.
func (l *Loop) owe(id base.RangeID, from, to base.ReplicaID, f Fort, term uint64, tooOld base.ReplicaID) {
	if f.Node == 0 || f.Token == (support.Token{}) || mutant.Is(mutant.ReleaseNotSent) {
		return
	}
	k := owedKey{id, to, f.Node}
	o := &owed{from: from, term: term, token: f.Token, tooOld: tooOld, at: l.now, wait: owedFirst}
	if old := l.owed[k]; old != nil {
		o.term, o.tooOld = max(o.term, old.term), max(o.tooOld, old.tooOld)
	}
	l.owed[k] = o
	l.owedAt = l.now
}

// payOwed says what is due.
func (l *Loop) payOwed() {
	if len(l.owed) == 0 || l.owedAt > l.now {
		return
	}
	keys := make([]owedKey, 0, len(l.owed))
	for k := range l.owed {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b owedKey) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.to, b.to), cmp.Compare(a.node, b.node))
	})
	l.owedAt = base.Never
	for _, k := range keys {
		o := l.owed[k]
		if token, _ := l.cfg.Supports.Support(k.node); token != o.token {
			delete(l.owed, k)
			continue
		}
		if o.at <= l.now {
			l.eff.Messages = append(l.eff.Messages, Message{
				Range: k.id, FromNode: l.cfg.Node, ToNode: k.node, FromReplica: o.from, ToReplica: k.to, TooOld: o.tooOld,
				Fort: &FortMessage{Kind: FortRelease, Term: o.term},
			})
			o.at, o.wait = l.now.Add(o.wait), min(2*o.wait, owedMost)
		}
		l.owedAt = min(l.owedAt, o.at)
	}
}

// paid takes the answer to such a word.
func (l *Loop) paid(m *Message) {
	k := owedKey{m.Range, m.FromReplica, m.FromNode}
	if o := l.owed[k]; o != nil && o.term <= m.Fort.Term {
		delete(l.owed, k)
	}
}
