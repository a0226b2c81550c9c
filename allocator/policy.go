package allocator

import (
	"fmt"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// What a policy says when nobody said anything. Times and shares as CockroachDB and PD have them, where they have them.
const (
	defaultReplicas    = 3
	ownReplicas        = 5 // of Cairn's own keyspaces: without them nothing else can be found or repaired
	ownAtLeast         = 3
	defaultFailedAfter = 5 * time.Minute
	ownFailedAfter     = 30 * time.Second
	// A node takes two replicas at once, as each is a snapshot that competes with its writes; and hands out two.
	defaultMovesPerNode = 2
	defaultMoves        = 64
	defaultImbalance    = 0.05
	// One node of four, or a zone of three, is more than happens by chance.
	defaultFailedShare = 0.3
	defaultFailedTier  = "zone"
	defaultSlowAfter   = 10 * time.Minute
	defaultSlowShare   = 0.1
)

// DefaultPolicy is what holds where nobody said anything else: three voters; five of Cairn's own keyspaces, once five nodes are
// there, which are also replaced sooner.
func DefaultPolicy() Policy {
	var p Policy
	p.EnsureDefaults()
	return p
}

// EnsureDefaults fills in what is not set. A keyspace's own placement takes what it does not say from Default, but for the
// constraints: none are none.
func (p *Policy) EnsureDefaults() {
	orElse(&p.Default.Replicas, defaultReplicas)
	orElse(&p.Default.FailedAfter, defaultFailedAfter)
	orElse(&p.MovesPerNode, defaultMovesPerNode)
	orElse(&p.Moves, defaultMoves)
	orElse(&p.SlowAfter, defaultSlowAfter)
	orElse(&p.Imbalance, defaultImbalance)
	orElse(&p.SlowShare, defaultSlowShare)
	orElse(&p.FailedShare, defaultFailedShare)
	if p.FailedTier == "" {
		p.FailedTier = defaultFailedTier
	}
	keyspaces := make(map[base.KeyspaceID]Placement, len(p.Keyspaces)+3)
	for k, v := range p.Keyspaces {
		keyspaces[k] = v
	}
	for k := base.KeyspaceRoot; k <= base.KeyspaceSys; k++ {
		own := keyspaces[k]
		if own.Replicas == 0 {
			own.Replicas, own.AtLeast = ownReplicas, ownAtLeast
		}
		orElse(&own.FailedAfter, min(ownFailedAfter, p.Default.FailedAfter))
		keyspaces[k] = own
	}
	for k, v := range keyspaces {
		orElse(&v.Replicas, p.Default.Replicas)
		orElse(&v.FailedAfter, p.Default.FailedAfter)
		keyspaces[k] = v
	}
	p.Keyspaces = keyspaces
}

func orElse[T ~int | ~int64 | ~float64](v *T, otherwise T) {
	if *v == 0 {
		*v = otherwise
	}
}

// Validate refuses what makes no sense by itself. What no node can satisfy is CheckPlacement's to say.
func (p *Policy) Validate() error {
	switch {
	case p.MovesPerNode < 1, p.Moves < 1:
		return fmt.Errorf("moves: at least one must be allowed")
	case p.Imbalance <= 0:
		return fmt.Errorf("imbalance: must be above 0")
	case p.FailedShare <= 0 || p.FailedShare > 1, p.SlowShare <= 0 || p.SlowShare > 1:
		return fmt.Errorf("a share of nodes is above 0 and at most 1")
	}
	if err := p.Default.Validate(); err != nil {
		return err
	}
	for k, v := range p.Keyspaces {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("keyspace %s: %w", k, err)
		}
	}
	return nil
}

// Validate refuses what makes no sense by itself.
func (p *Placement) Validate() error {
	if p.Replicas < 1 || p.Replicas >= base.MaxReplicas {
		return fmt.Errorf("replicas: %d is not in 1 to %d", p.Replicas, base.MaxReplicas-1)
	}
	if p.AtLeast < 0 || p.AtLeast > p.Replicas {
		return fmt.Errorf("at least: %d is not in 0 to %d", p.AtLeast, p.Replicas)
	}
	if n := len(p.Constraints); n > maxConstraints {
		return fmt.Errorf("%d constraints: at most %d", n, maxConstraints)
	}
	if n := len(p.Leaders); n > maxConstraints {
		return fmt.Errorf("%d preferences for leaders: at most %d", n, maxConstraints)
	}
	for _, c := range append(append([]Constraint(nil), p.Constraints...), p.Leaders...) {
		switch {
		case c.Value == "":
			return fmt.Errorf("constraint %s: nothing to match", c)
		case c.Kind > Preferred:
			return fmt.Errorf("constraint %s: unknown kind %d", c, c.Kind)
		case c.Replicas < 0 || c.Replicas > p.Replicas:
			return fmt.Errorf("constraint %s: is about more replicas than the %d that there are", c, p.Replicas)
		}
	}
	return nil
}

// String is the constraint as people write it: +region=eu:2, -ssd.
func (c Constraint) String() string {
	s := string("+-~?"[min(int(c.Kind), 3)])
	if c.Key != "" {
		s += c.Key + "="
	}
	s += c.Value
	if c.Replicas > 0 {
		s += fmt.Sprintf(":%d", c.Replicas)
	}
	return s
}
