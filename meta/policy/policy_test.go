package policy

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

func TestSet(t *testing.T) {
	for _, a := range []string{"replicas=5", "constraints=+region=eu:2,-zone=a,~ssd", "leaders=+zone=b", "failed_after=5m", "failed_after_own=1m30s", "failed_share=33.3%",
		"failed_tier=zone", "moves_per_node=4", "moves=16", "snapshot_rate=64MiB", "pause_latency=250%", "imbalance=2.5%", "balance=off"} {
		p := &metapb.PolicyRecord{}
		if err := Set(p, a); err != nil {
			t.Errorf("%s: %v", a, err)
			continue
		}
		name, value, _ := strings.Cut(a, "=")
		for _, k := range Keys() {
			want := unset
			if k.Name == "balance" {
				want = "on"
			}
			if k.Name == name {
				want = value
			}
			if got := k.Get(p); got != want {
				t.Errorf("after %s, %s is %q, want %q", a, k.Name, got, want)
			}
		}
		if err := Set(p, name+"="+unset); err != nil || Check(p) != nil {
			t.Errorf("%s is not taken back: %v", name, err)
		}
	}
}

// TestDefaultsAreEachKeysOwn: what somebody sets of one key takes no other key's default away.
func TestDefaultsAreEachKeysOwn(t *testing.T) {
	untouched := Cluster(nil)
	for _, a := range []string{"replicas=5", "constraints=-zone=a", "leaders=+zone=b", "failed_after=6m", "failed_after_own=1m30s", "failed_share=50%",
		"failed_tier=rack", "moves_per_node=4", "moves=16", "snapshot_rate=32MiB", "pause_latency=250%", "imbalance=2.5%", "balance=off"} {
		p := &metapb.PolicyRecord{}
		if err := Set(p, a); err != nil {
			t.Fatal(err)
		}
		full := Cluster(p)
		for _, k := range Keys() {
			want := k.Get(untouched)
			if name, value, _ := strings.Cut(a, "="); k.Name == name {
				want = value
			}
			if got := k.Get(full); got != want {
				t.Errorf("after %s, %s is %q, want %q", a, k.Name, got, want)
			}
		}
	}
}

func TestSetRefuses(t *testing.T) {
	for a, says := range map[string]string{
		"replicas": "not KEY=VALUE", "x=1": "there are replicas, constraints", "replicas=0": "more than nothing", "replicas=6": "from 1 to 5", "replicas=x": "not a number",
		"failed_after=5": "not a time", "failed_after=1ms": "from 1s to 168h", "failed_after=-5m": "not a time", "snapshot_rate=64MB": "not a size", "snapshot_rate=1": "from 1MiB",
		"failed_share=0.3": "not a share", "failed_share=101%": "from 1% to 100%", "failed_share=33.33%": "one place", "balance=maybe": "neither", "failed_tier=a=b": "not the key",
		"constraints=eu": "begins with none", "snapshot_rate=99999999999999GiB": "not a size", "pause_latency=50%": "from 100%",
	} {
		if err := Set(&metapb.PolicyRecord{}, a); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", a, err, says)
		}
	}
	if err := Set(&metapb.PolicyRecord{KeyspaceId: 100}, "moves=3"); err == nil || !strings.Contains(err.Error(), "without --keyspace") {
		t.Errorf("a keyspace has its own moves: %v", err)
	}
}

func record(t interface{ Fatal(...any) }, assignments ...string) *metapb.PolicyRecord {
	p := &metapb.PolicyRecord{}
	for _, a := range assignments {
		if err := Set(p, a); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestCheck(t *testing.T) {
	for says, p := range map[string]*metapb.PolicyRecord{
		"the cluster's":        {KeyspaceId: 100, Cluster: &metapb.ClusterPolicy{Moves: 3}},
		"from 1 to 5":          {Placement: &metapb.PlacementPolicy{Replicas: 9}},
		"more than replicas=3": record(t, "replicas=3", "constraints=+region=eu:2,+region=us:2"),
		"forbidden too":        record(t, "constraints=+zone=a,-zone=a"),
		"about nothing":        {Placement: &metapb.PlacementPolicy{Constraints: []*metapb.Constraint{{Kind: 1, Value: "a b"}}}},
		"from 100% to 10000%":  {Cluster: &metapb.ClusterPolicy{PauseLatencyPermille: 1}},
	} {
		err := Check(p)
		var refused *base.Refused
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v, want %q", p, err, says)
		}
	}
	if err := Check(record(t, "replicas=5", "constraints=+region=eu:2,+region=us:2,~ssd")); err != nil {
		t.Error(err)
	}
}

// A keyspace takes from the cluster what it leaves open, and the cluster from the defaults; the planner sees the outcome.
func TestWhatThePlannerHoldsTo(t *testing.T) {
	cluster := record(t, "replicas=5", "constraints=+region=eu", "failed_after=2m", "imbalance=10%")
	shards := &metapb.PolicyRecord{KeyspaceId: 100}
	if err := Set(shards, "constraints=~ssd"); err != nil {
		t.Fatal(err)
	}
	own := &metapb.PolicyRecord{KeyspaceId: uint64(base.KeyspaceMeta)}
	if err := Set(own, "replicas=3"); err != nil {
		t.Fatal(err)
	}
	got := placement.Policies([]*metapb.PolicyRecord{shards, cluster, own})
	if d := got.Default; d.Replicas != 5 || len(d.Constraints) != 1 || d.FailedAfter != 2*time.Minute || got.Imbalance != 0.1 || got.MovesPerNode != allocator.DefaultPolicy().MovesPerNode {
		t.Errorf("%+v", got)
	}
	if s := got.Keyspaces[100]; s.Replicas != 5 || s.Constraints[0].String() != "~ssd" || s.FailedAfter != 2*time.Minute {
		t.Errorf("shards: %+v", s)
	}
	if s := got.Keyspaces[base.KeyspaceMeta]; s.Replicas != 3 || s.Constraints[0].String() != "+region=eu" || s.FailedAfter != base.FailedAfterOwn {
		t.Errorf("meta: %+v", s)
	}
	if s := got.Keyspaces[base.KeyspaceRoot]; s.Replicas != allocator.DefaultPolicy().Keyspaces[base.KeyspaceRoot].Replicas || s.FailedAfter != base.FailedAfterOwn {
		t.Errorf("root: %+v", s)
	}
	if none := placement.Policies(nil); !reflect.DeepEqual(none, allocator.DefaultPolicy()) {
		t.Errorf("without records: %+v", none)
	}
}

// What is shown can be set, whatever the record.
func TestShownIsSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &metapb.PolicyRecord{}
		for _, k := range Keys() {
			if k.num == nil || rapid.Bool().Draw(t, k.Name) {
				continue
			}
			var lo, hi metapb.PolicyRecord
			if k.set(&lo, k.low) != nil || k.set(&hi, k.high) != nil {
				t.Fatalf("%s: its bounds cannot be read", k.Name)
			}
			n := rapid.Uint64Range(k.num(&lo), k.num(&hi)).Draw(t, "n")
			switch k.Name {
			case "snapshot_rate":
				p2 := clusterOf(p)
				p2.SnapshotBytesPerSecond = n
			case "failed_after":
				clusterOf(p).FailedAfterMillis = n
			case "imbalance":
				clusterOf(p).ImbalancePermille = uint32(n)
			}
		}
		back := &metapb.PolicyRecord{}
		for _, k := range Keys() {
			if err := k.Set(back, k.Get(p)); err != nil {
				t.Fatalf("%s: %v", k.Name, err)
			}
		}
		placementOf(p) // made, as setting does
		clusterOf(p)
		if !proto.Equal(p, back) {
			t.Fatalf("%v was shown and set as %v", p, back)
		}
	})
}
