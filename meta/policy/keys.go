package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Key is one setting, as people name it.
type Key struct {
	Name  string
	About string
	Takes string // what it is given as
	Own   bool   // a keyspace may have its own
	Get   func(*metapb.PolicyRecord) string
	set   func(*metapb.PolicyRecord, string) error
	low   string // no less than this; empty: any
	high  string // and no more
	num   func(*metapb.PolicyRecord) uint64
}

// unset is how a key is written that nobody set, and how it is taken back.
const unset = "default"

// Keys are all, in the order in which they are shown.
func Keys() []Key {
	return []Key{
		number("replicas", "voters of each range", 1, base.MaxVoters, true, func(p *metapb.PolicyRecord) *uint32 { return &placementOf(p).Replicas }),
		constraints("constraints", "where replicas are to be", func(p *metapb.PolicyRecord) *[]*metapb.Constraint { return &placementOf(p).Constraints }),
		constraints("leaders", "where leaders are preferred: the first that some voter meets counts", func(p *metapb.PolicyRecord) *[]*metapb.Constraint { return &placementOf(p).Leaders }),
		duration("failed_after", "how long a node is suspect before what it holds is replaced", func(p *metapb.PolicyRecord) *uint64 { return &clusterOf(p).FailedAfterMillis }),
		duration("failed_after_own", "the same, for Cairn's own ranges: root, meta, sys", func(p *metapb.PolicyRecord) *uint64 { return &clusterOf(p).FailedAfterOwnMillis }),
		share("failed_share", "above this share of nodes that fail together nothing is replaced; above half of it slowly", 10, 1000, func(p *metapb.PolicyRecord) *uint32 { return &clusterOf(p).FailedSharePermille }),
		text("failed_tier", "the locality tier by whose values that share is looked at, too; none: of the cluster only", func(p *metapb.PolicyRecord) *string { return &clusterOf(p).FailedTier }),
		number("moves_per_node", "replicas that come to, or leave, one node at once", 1, 64, false, func(p *metapb.PolicyRecord) *uint32 { return &clusterOf(p).MovesPerNode }),
		number("moves", "replicas that one decider moves at once", 1, 4096, false, func(p *metapb.PolicyRecord) *uint32 { return &clusterOf(p).Moves }),
		size("snapshot_rate", "bytes of snapshots that one node sends in a second", func(p *metapb.PolicyRecord) *uint64 { return &clusterOf(p).SnapshotBytesPerSecond }),
		share("pause_latency", "moves wait while a node's writes take more than this, of what is normal", 1000, 100_000, func(p *metapb.PolicyRecord) *uint32 { return &clusterOf(p).PauseLatencyPermille }),
		share("imbalance", "how far a node may be from the mean before replicas are moved for balance", 5, 1000, func(p *metapb.PolicyRecord) *uint32 { return &clusterOf(p).ImbalancePermille }),
		onOff("balance", "whether replicas are moved for balance", func(p *metapb.PolicyRecord) *bool { return &clusterOf(p).NoBalance }),
	}
}

// Set takes KEY=VALUE into a record; the value default takes it back. What it refuses it says.
func Set(p *metapb.PolicyRecord, assignment string) error {
	name, value, ok := strings.Cut(assignment, "=")
	if !ok {
		return fmt.Errorf("%q is not KEY=VALUE, such as failed_after=5m", assignment)
	}
	var names []string
	for _, k := range Keys() {
		if k.Name == name {
			return k.Set(p, value)
		}
		names = append(names, k.Name)
	}
	return fmt.Errorf("there is no key %q: there are %s", name, strings.Join(names, ", "))
}

// Set takes one value in.
func (k Key) Set(p *metapb.PolicyRecord, value string) error {
	if p.KeyspaceId != 0 && !k.Own {
		return fmt.Errorf("%s is the cluster's: set it without --keyspace", k.Name)
	}
	if err := k.set(p, value); err != nil {
		return fmt.Errorf("%s=%s: %w: give %s, or %s", k.Name, value, err, k.Takes, unset)
	}
	if why := k.wrong(p); why != "" {
		return fmt.Errorf("%s=%s: %s", k.Name, value, why)
	}
	return nil
}

// wrong says what is wrong with the key's value; empty: nothing.
func (k Key) wrong(p *metapb.PolicyRecord) string {
	if k.num == nil || k.num(p) == 0 {
		return ""
	}
	probe := &metapb.PolicyRecord{}
	bound := func(text string) uint64 {
		if k.set(probe, text) != nil {
			return 0 // not reached: the bounds are written below, and tested
		}
		return k.num(probe)
	}
	if n := k.num(p); n < bound(k.low) || n > bound(k.high) {
		return fmt.Sprintf("it must be from %s to %s", k.low, k.high)
	}
	return ""
}

// placementOf and clusterOf are a record's parts, made where they are missing.
func placementOf(p *metapb.PolicyRecord) *metapb.PlacementPolicy {
	if p.Placement == nil {
		p.Placement = &metapb.PlacementPolicy{}
	}
	return p.Placement
}

func clusterOf(p *metapb.PolicyRecord) *metapb.ClusterPolicy {
	if p.Cluster == nil {
		p.Cluster = &metapb.ClusterPolicy{}
	}
	return p.Cluster
}

// view is a record that has both parts, to be read: p itself is not changed.
func view(p *metapb.PolicyRecord) *metapb.PolicyRecord {
	if p.GetPlacement() != nil && p.GetCluster() != nil {
		return p
	}
	out := &metapb.PolicyRecord{Placement: p.GetPlacement(), Cluster: p.GetCluster()}
	placementOf(out)
	clusterOf(out)
	return out
}

// numeric is a key whose value is a number, written in some way.
func numeric[T uint32 | uint64](k Key, at func(*metapb.PolicyRecord) *T, format func(uint64) string, parse func(string) (uint64, error)) Key {
	k.num = func(p *metapb.PolicyRecord) uint64 { return uint64(*at(view(p))) }
	k.Get = func(p *metapb.PolicyRecord) string {
		if n := *at(view(p)); n != 0 {
			return format(uint64(n))
		}
		return unset
	}
	k.set = func(p *metapb.PolicyRecord, value string) error {
		if value == unset {
			*at(p) = 0
			return nil
		}
		n, err := parse(value)
		switch {
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("it must be more than nothing")
		case uint64(T(n)) != n:
			return fmt.Errorf("it is too large")
		}
		*at(p) = T(n)
		return nil
	}
	return k
}

func number(name, about string, low, high int, own bool, at func(*metapb.PolicyRecord) *uint32) Key {
	k := Key{Name: name, About: about, Takes: "a number", Own: own, low: strconv.Itoa(low), high: strconv.Itoa(high)}
	return numeric(k, at, func(n uint64) string { return strconv.FormatUint(n, 10) }, func(s string) (uint64, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("it is not a number")
		}
		return n, nil
	})
}

func duration(name, about string, at func(*metapb.PolicyRecord) *uint64) Key {
	k := Key{Name: name, About: about, Takes: "a time such as 30s or 5m", low: "1s", high: "168h"}
	return numeric(k, at, func(n uint64) string { return shortDuration(time.Duration(n) * time.Millisecond) }, func(s string) (uint64, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return 0, fmt.Errorf("it is not a time")
		}
		return uint64(d.Milliseconds()), nil
	})
}

// shortDuration writes 5m0s as 5m.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func share(name, about string, low, high uint64, at func(*metapb.PolicyRecord) *uint32) Key {
	format := func(n uint64) string { return strconv.FormatFloat(float64(n)/10, 'f', -1, 64) + "%" }
	k := Key{Name: name, About: about, Takes: "a share such as 30%", low: format(low), high: format(high)}
	return numeric(k, at, format, func(s string) (uint64, error) {
		number, percent := strings.CutSuffix(s, "%")
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || !percent || f < 0 || f > math.MaxUint32/10 || math.Abs(f*10-math.Round(f*10)) > 1e-6 {
			return 0, fmt.Errorf("it is not a share in percent, with at most one place behind the point")
		}
		return uint64(math.Round(f * 10)), nil
	})
}

// units are those of sizes, largest first.
var units = []struct {
	name  string
	bytes uint64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func size(name, about string, at func(*metapb.PolicyRecord) *uint64) Key {
	k := Key{Name: name, About: about, Takes: "a size such as 64MiB", low: "1MiB", high: "64GiB"}
	format := func(n uint64) string {
		for _, u := range units {
			if n%u.bytes == 0 {
				return strconv.FormatUint(n/u.bytes, 10) + u.name
			}
		}
		return strconv.FormatUint(n, 10)
	}
	return numeric(k, at, format, func(s string) (uint64, error) {
		times := uint64(1)
		for _, u := range units {
			if digits, ok := strings.CutSuffix(s, u.name); ok {
				s, times = digits, u.bytes
				break
			}
		}
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n > math.MaxUint64/times {
			return 0, fmt.Errorf("it is not a size")
		}
		return n * times, nil
	})
}

func text(name, about string, at func(*metapb.PolicyRecord) *string) Key {
	return Key{Name: name, About: about, Takes: "the key of a locality tier such as zone",
		Get: func(p *metapb.PolicyRecord) string {
			if v := *at(view(p)); v != "" {
				return v
			}
			return unset
		},
		set: func(p *metapb.PolicyRecord, value string) error {
			if value == unset {
				value = ""
			}
			if strings.ContainsAny(value, " =,:") {
				return fmt.Errorf("it is not the key of a tier")
			}
			*at(p) = value
			return nil
		}}
}

func onOff(name, about string, off func(*metapb.PolicyRecord) *bool) Key {
	return Key{Name: name, About: about, Takes: "on or off",
		Get: func(p *metapb.PolicyRecord) string {
			if *off(view(p)) {
				return "off"
			}
			return "on"
		},
		set: func(p *metapb.PolicyRecord, value string) error {
			switch value {
			case "on", unset:
				*off(p) = false
			case "off":
				*off(p) = true
			default:
				return fmt.Errorf("it is neither")
			}
			return nil
		}}
}

func constraints(name, about string, at func(*metapb.PolicyRecord) *[]*metapb.Constraint) Key {
	return Key{Name: name, About: about, Takes: "constraints such as +region=eu:2,-zone=a,~ssd", Own: true,
		Get: func(p *metapb.PolicyRecord) string {
			if cs := *at(view(p)); len(cs) > 0 {
				return allocator.FormatConstraints(constraintsIn(cs))
			}
			return unset
		},
		set: func(p *metapb.PolicyRecord, value string) error {
			if value == unset {
				value = ""
			}
			cs, err := allocator.ParseConstraints(value)
			*at(p) = constraintsOut(cs)
			return err
		}}
}
