package support

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// This explores, exhaustively up to a bound, what can become of one promise: the real Requester and Supporter, a network that
// delays, loses, doubles and reorders, two clocks each of whose rates may change at every step between the two extremes, starts
// of both nodes, and a range of which the requester's node holds the leader at some term: its follower at the supporter's node
// is asked to fortify, answers, is released, and votes for another whenever it is free to. A quorum needs a vote of a node that
// the lease counts (doc.go); so it is enough that no node votes while the leader counts it.

// pairState is one state. Times are on the clocks of the two.
type pairState struct {
	r      Requester
	s      Supporter
	clocks [2]base.Instant
	inc    [2]base.Incarnation

	asks    []Request
	answers []Answer

	leads    bool // the leader still leads
	released bool // and has said that it does not
	fort     *Token
	counted  *Token // what the leader was answered
	given    []Token
	voted    bool
}

func (p *pairState) clone() *pairState {
	c := *p
	c.r.peers = map[base.NodeID]*peer{}
	for id, q := range p.r.peers {
		x := *q
		x.flying = slices.Clone(q.flying)
		c.r.peers[id] = &x
	}
	rand := *p.r.rand
	c.r.rand = &rand
	c.s.promises = map[base.NodeID]*promise{}
	for id, q := range p.s.promises {
		x := *q
		c.s.promises[id] = &x
	}
	c.s.order, c.r.order = slices.Clone(p.s.order), slices.Clone(p.r.order)
	c.asks, c.answers, c.given = slices.Clone(p.asks), slices.Clone(p.answers), slices.Clone(p.given)
	return &c
}

// key names a state: two with one key have the same future. Only differences between times matter.
func (p *pairState) key() string {
	var q peer
	if x := p.r.peers[2]; x != nil {
		q = *x
	}
	var flying []string
	for _, f := range q.flying {
		flying = append(flying, fmt.Sprint(f.seq, p.clocks[0]-f.sent))
	}
	prom := promise{}
	if x := p.s.promises[1]; x != nil {
		prom = *x
	}
	left := func(until, now base.Instant) base.Instant { return max(until-now, -1) }
	tok := func(t *Token) string {
		if t == nil {
			return "-"
		}
		return fmt.Sprint(*t)
	}
	return fmt.Sprint(q.token, left(q.until, p.clocks[0]), flying, prom.incarnation, prom.epoch, prom.live, left(prom.until, p.clocks[1]),
		min(p.clocks[1]-p.s.started, base.Instant(p.s.cfg.MaxDuration)+1), p.inc, p.asks, p.answers, p.leads, p.released, tok(p.fort), tok(p.counted), p.given, p.voted)
}

const (
	exploreUnit = 100 * ms // of true time
	exploreD    = 200 * time.Millisecond
	exploreMax  = 300 * time.Millisecond
)

func exploreConfig(node base.NodeID, inc base.Incarnation) Config {
	return Config{Self: node, Incarnation: inc, Interval: 100 * time.Millisecond, Duration: exploreD, MaxDuration: exploreMax,
		DiskLimit: time.Hour, IdleInterval: 100 * time.Millisecond, IdleDuration: exploreD}
}

func (p *pairState) startRequester() {
	p.inc[0]++
	r, err := NewRequester(exploreConfig(1, p.inc[0]), p.clocks[0])
	if err != nil {
		panic(err)
	}
	r.SetPeers(p.clocks[0], []base.NodeID{2})
	p.r = *r
}

func (p *pairState) startSupporter() {
	p.inc[1]++
	s, err := NewSupporter(exploreConfig(2, p.inc[1]), p.clocks[1])
	if err != nil {
		panic(err)
	}
	p.s, p.fort = *s, nil
}

// leased says whether the leader counts on the follower now.
func (p *pairState) leased() bool {
	if !p.leads || p.counted == nil {
		return false
	}
	token, until := p.r.Support(2)
	return token == *p.counted && p.clocks[0] < until
}

// next lists the states that one event leads to.
func (p *pairState) next(drift base.Instant) (out []*pairState) {
	do := func(f func(*pairState)) {
		c := p.clone()
		f(c)
		c.withdraw()
		out = append(out, c)
	}
	for _, rates := range [][2]base.Instant{{-1, -1}, {-1, 1}, {1, -1}, {1, 1}} {
		do(func(c *pairState) {
			for i := range c.clocks {
				c.clocks[i] += exploreUnit + rates[i]*exploreUnit*drift/1000
			}
		})
	}
	if len(p.asks) < 2 {
		do(func(c *pairState) {
			c.r.askAt = c.clocks[0]
			c.r.Synced(c.clocks[0])
			asks, _ := c.r.Due(c.clocks[0])
			c.asks = append(c.asks, asks[0].Request)
		})
	}
	for i := range p.asks {
		for _, keep := range []bool{false, true} { // it may come again
			if keep && len(p.answers) > 0 {
				continue
			}
			do(func(c *pairState) { c.deliverAsk(i, keep) })
		}
	}
	for i := range p.answers {
		do(func(c *pairState) {
			c.r.Answered(c.clocks[0], 2, c.answers[i])
			c.answers = slices.Delete(c.answers, i, i+1)
		})
	}
	if p.inc[0] < 2 {
		do(func(c *pairState) { c.startRequester(); c.leads, c.counted = false, nil })
	}
	if p.inc[1] < 3 {
		do(func(c *pairState) { c.startSupporter() })
	}
	if p.leads {
		do(func(c *pairState) { c.fortify() })
		do(func(c *pairState) { c.leads, c.released = false, true })
	}
	for i := range p.given {
		do(func(c *pairState) {
			if c.leads {
				t := c.given[i]
				c.counted = &t
			}
			c.given = slices.Delete(c.given, i, i+1)
		})
	}
	if p.released && p.fort != nil {
		do(func(c *pairState) { c.fort = nil })
	}
	if !p.voted && p.fort == nil && !p.s.Silent(p.clocks[1]) {
		do(func(c *pairState) { c.voted = true })
	}
	return out
}

func (p *pairState) deliverAsk(i int, keep bool) {
	a, ended, err := p.s.Requested(p.clocks[1], 1, p.asks[i])
	p.end(ended)
	if err == nil && len(p.answers) < 2 {
		p.answers = append(p.answers, a)
	}
	if !keep {
		p.asks = slices.Delete(p.asks, i, i+1)
	}
}

// fortify is FortAsk, arriving at once: one that comes late is refused or answered as one that was sent late.
func (p *pairState) fortify() {
	token, inc, ok := p.s.Supports(1)
	if !ok || inc != p.inc[0] || p.voted {
		return
	}
	p.fort = &token
	if len(p.given) < 2 {
		p.given = append(p.given, token)
	}
}

func (p *pairState) withdraw() { p.end(p.s.Withdraw(p.clocks[1])) }

func (p *pairState) end(ended []Ended) {
	for _, e := range ended {
		if p.fort != nil && *p.fort == e.Token {
			p.fort = nil
		}
	}
}

// explore visits every state up to a depth and returns how many there are, and the first that is wrong.
func explore(depth int, drift base.Instant) (states int, wrong string) {
	first := &pairState{clocks: [2]base.Instant{100_000 * ms, 7_000 * ms}, leads: true}
	first.startRequester()
	first.startSupporter()
	first.s.started -= base.Instant(exploreMax) + 1
	seen := map[string]bool{first.key(): true}
	level := []*pairState{first}
	for range depth {
		var below []*pairState
		for _, p := range level {
			for _, q := range p.next(drift) {
				k := q.key()
				if seen[k] {
					continue
				}
				seen[k] = true
				if q.voted && q.leased() {
					return len(seen), k
				}
				below = append(below, q)
			}
		}
		level = below
	}
	return len(seen), ""
}

// exploreTo is the bound, in events. A lease, its end and a vote take eight.
var exploreTo = flag.Int("explore", 8, "how many events TestEveryPromiseUpToABound goes through; each multiplies the states by about four")

func TestEveryPromiseUpToABound(t *testing.T) {
	states, wrong := explore(*exploreTo, MaxDrift)
	t.Logf("%d states up to %d events", states, *exploreTo)
	if wrong != "" {
		t.Errorf("a follower voted while the leader counts on it: %s", wrong)
	}
	if states < 10_000 {
		t.Errorf("only %d states: nothing was explored", states)
	}
}

// Clocks beyond the bound show that the exploration sees a broken promise.
func TestTheExplorationIsAlive(t *testing.T) {
	if _, wrong := explore(9, 8*MaxDrift); wrong == "" {
		t.Error("clocks that are wrong by 40 % broke no promise")
	}
}
