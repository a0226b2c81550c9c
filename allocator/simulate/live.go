package simulate

import (
	"cmp"
	"errors"
	"slices"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// Live is a cluster that is there, as somebody has read it.
type Live struct {
	Nodes  []Node
	Ranges []allocator.Range // ascending
	Names  map[base.KeyspaceID]string
	Policy *allocator.Policy // nil: the default
}

// Load lets a scenario begin with a live cluster. The scenario then has events, expectations and what it says of the policy, which
// goes before the cluster's own; it has no nodes and keyspaces of its own.
func (s *Scenario) Load(l Live) error {
	if len(s.Nodes) > 0 || len(s.Keyspaces) > 0 {
		return errors.New("nodes and keyspaces are the live cluster's: the scenario may add some at a time (at 1m add 3 nodes zone=d), and none before")
	}
	if l.Policy != nil {
		s.Policy = *l.Policy
	}
	if err := applyPolicy(&s.Policy, s.policySet); err != nil {
		return err
	}
	s.Nodes, s.Ranges = l.Nodes, l.Ranges
	for id, name := range l.Names {
		placement, own := s.Policy.Keyspaces[id]
		if !own {
			placement = s.Policy.Default
		}
		s.Keyspaces = append(s.Keyspaces, Keyspace{Name: name, ID: id, Placement: placement})
	}
	slices.SortFunc(s.Keyspaces, func(a, b Keyspace) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}
