package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// SeedFile is a plan that failed once, kept so that it is replayed for ever.
type SeedFile struct {
	// Found says what was wrong, Fixed what was done about it; both are for people.
	Found, Fixed string
	// Checker is the one that complained.
	Checker string
	Plan    *Plan
}

// VersionError: a file speaks of plans as another version of this package understood them. It is skipped, and said to be.
type VersionError struct{ Have, Want int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the plan has version %d, this simulator knows version %d: it would run something else", e.Have, e.Want)
}

// ReadSeedFile reads one. Fields that this version does not know are an error: they would change the run.
func ReadSeedFile(path string) (*SeedFile, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := decodeSeedFile(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func decodeSeedFile(raw []byte) (*SeedFile, error) {
	var head struct{ Plan struct{ Version int } }
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	if v := head.Plan.Version; v != PlanVersion {
		return nil, &VersionError{v, PlanVersion}
	}
	f := &SeedFile{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, err
	}
	return f, f.Plan.Validate()
}

// Write writes the file.
func (f *SeedFile) Write(path string) error {
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// The bounds of a plan: what is beyond them is a mistake, or would run for hours.
const (
	maxNodes, maxRanges, maxClients = 15, 20, 100
	maxFaults                       = 10_000
)

// Validate returns every problem of a plan at once.
func (p *Plan) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p.Version != PlanVersion {
		errs = append(errs, &VersionError{p.Version, PlanVersion})
	}
	if p.Nodes < 3 || p.Nodes > maxNodes {
		bad("%d nodes; between 3 and %d are possible", p.Nodes, maxNodes)
	}
	if p.Ranges < 1 || p.Ranges > maxRanges || len(p.Workload) != p.Ranges {
		bad("%d ranges and %d workloads", p.Ranges, len(p.Workload))
	}
	if p.Clients < 1 || p.Clients > maxClients || p.Ops < 0 || p.Length <= 0 || p.Think <= 0 {
		bad("%d clients, %d operations, %s, a pause of %s", p.Clients, p.Ops, p.Length, p.Think)
	}
	if p.Spare < 0 || p.Spare > p.Nodes-3 {
		bad("%d of %d nodes are no members; three must be", p.Spare, p.Nodes)
	}
	if len(p.Faults) > maxFaults {
		bad("%d faults", len(p.Faults))
	}
	for i, f := range p.Faults {
		if k, ok := kindNamed(f.Kind); !ok {
			bad("fault %d: there is no %q", i, f.Kind)
		} else if k.Class == "W9" && !p.Allocator {
			bad("fault %d: %q befalls plans with deciders alone", i, f.Kind)
		}
		if f.Node < Leader || f.Range < 0 || f.At < 0 || f.For < 0 {
			bad("fault %d: node %d, range %d, at %s for %s", i, f.Node, f.Range, f.At, f.For)
		}
		for _, peer := range f.Peers {
			if peer < 0 || peer >= p.Nodes {
				bad("fault %d: there is no node %d", i, peer)
			}
		}
	}
	return errors.Join(errs...)
}
