package support

import (
	"fmt"
	"slices"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// Supporter keeps what this node has promised to others.
type Supporter struct {
	cfg      Config
	started  base.Instant
	promises map[base.NodeID]*promise
	order    []base.NodeID
}

// promise is to one requester. It stays when it has ended: its epoch must not come again.
type promise struct {
	incarnation base.Incarnation // of the requester
	epoch       uint64
	until       base.Instant // on this node's clock
	live        bool         // not withdrawn
}

// Ended tells of a support that is no more: fortifications for that node under that token are gone.
type Ended struct {
	Node  base.NodeID
	Token Token
}

// NewSupporter makes one of a node that starts now: it knows nothing of what its earlier processes promised.
func NewSupporter(cfg Config, now base.Instant) (*Supporter, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Supporter{cfg: cfg, started: now, promises: make(map[base.NodeID]*promise)}, nil
}

// Requested promises support, and says whose earlier support ended by that: a new incarnation's first request ends what
// was promised to the old one. A refusal is an error that says why; nothing has changed then, but that what had run out is
// withdrawn.
func (s *Supporter) Requested(now base.Instant, from base.NodeID, q Request) (Answer, []Ended, error) {
	if from == 0 || from == s.cfg.Self || q.Incarnation == 0 {
		return Answer{}, nil, fmt.Errorf("support asked for by %s, incarnation %d", from, q.Incarnation)
	}
	if q.Duration <= 0 || q.Duration > s.cfg.MaxDuration {
		return Answer{}, nil, fmt.Errorf("%s asks for support of %s; at most %s is given", from, q.Duration, s.cfg.MaxDuration)
	}
	ended := s.Withdraw(now)
	p := s.promises[from]
	if p == nil {
		p = &promise{}
		s.promises[from] = p
		s.order = append(s.order, from)
		slices.Sort(s.order)
	}
	switch {
	case q.Incarnation < p.incarnation:
		return Answer{}, ended, fmt.Errorf("%s asks as incarnation %d; it has been started again since", from, q.Incarnation)
	case q.Incarnation > p.incarnation:
		if p.live {
			ended = append(ended, Ended{from, s.token(p)})
			p.live = false
		}
		p.incarnation = q.Incarnation
	}
	if !p.live {
		p.epoch++
		p.live, p.until = true, 0
	}
	p.until = max(p.until, now.Add(q.Duration))
	return Answer{q.Incarnation, q.Seq, s.token(p)}, ended, nil
}

// Withdraw ends what has run out. Nothing else does: a promise that a vote or a campaign asks about has either run out and
// been withdrawn, or holds.
func (s *Supporter) Withdraw(now base.Instant) (ended []Ended) {
	for _, id := range s.order {
		p := s.promises[id]
		until := p.until
		if mutant.Is(mutant.WithdrawnEarly) {
			until = until.Add(-s.cfg.Duration / 2)
		}
		if p.live && until < now {
			ended = append(ended, Ended{id, s.token(p)})
			p.live = false
		}
	}
	return ended
}

func (s *Supporter) token(p *promise) Token { return Token{s.cfg.Incarnation, p.epoch} }

// NextEnd is when the first promise runs out if nobody asks again.
func (s *Supporter) NextEnd() base.Instant {
	next := base.Never
	for _, id := range s.order {
		if p := s.promises[id]; p.live {
			next = min(next, p.until+1)
		}
	}
	return next
}

// Supports returns the token of the present support for a node and the incarnation that has it; false if there is none.
func (s *Supporter) Supports(id base.NodeID) (Token, base.Incarnation, bool) {
	p := s.promises[id]
	if p == nil || !p.live {
		return Token{}, 0, false
	}
	return s.token(p), p.incarnation, true
}

// Silent says whether this node may still be bound by promises of its earlier processes: it neither votes nor campaigns.
func (s *Supporter) Silent(now base.Instant) bool { return now.Sub(s.started) <= s.cfg.MaxDuration }
