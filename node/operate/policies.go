package operate

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/policy"
	"github.com/cairndb/cairn/node/sysrec"
)

// keyspace is the id of a name; empty: 0, which stands for the cluster.
func (m *Manager) keyspace(ctx context.Context, name string) (base.KeyspaceID, error) {
	if name == "" {
		return 0, nil
	}
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceDefault; ks++ {
		if ks.String() == name {
			return ks, nil
		}
	}
	all, err := m.cfg.Keyspaces(ctx)
	if err != nil {
		return 0, err
	}
	for _, k := range all {
		if k.Name == name {
			return base.KeyspaceID(k.KeyspaceId), nil
		}
	}
	return 0, &base.NoKeyspace{Name: name}
}

// Policy returns what somebody set for a keyspace, or for the cluster (""), and that with all defaults filled in.
func (m *Manager) Policy(ctx context.Context, keyspace string) (stored, effective *metapb.PolicyRecord, err error) {
	ks, err := m.keyspace(ctx, keyspace)
	if err != nil {
		return nil, nil, err
	}
	all, err := Policies(ctx, m.cfg.Cluster)
	if err != nil {
		return nil, nil, err
	}
	stored = policy.Of(all, ks)
	if stored == nil {
		stored = &metapb.PolicyRecord{KeyspaceId: uint64(ks)}
	}
	if ks == 0 {
		return stored, policy.Cluster(stored), nil
	}
	return stored, policy.Keyspace(ks, stored, policy.Of(all, 0)), nil
}

// SetPolicy replaces a policy, if it is still as it was when the new one was made of it (its generation). What the nodes that there are
// can never satisfy is refused; what they can satisfy only in part is a warning.
func (m *Manager) SetPolicy(ctx context.Context, keyspace string, p *metapb.PolicyRecord, dryRun bool, status StatusFunc) (set *metapb.PolicyRecord, warnings []string, err error) {
	if p == nil {
		return nil, nil, &base.Refused{For: base.RefusedMalformed, Reason: "no policy is given"}
	}
	ks, err := m.keyspace(ctx, keyspace)
	if err != nil {
		return nil, nil, err
	}
	set = proto.CloneOf(p)
	set.KeyspaceId = uint64(ks)
	if err := policy.Check(set); err != nil {
		return nil, nil, err
	}
	err = m.change(ctx, func(r *records, t *sysrec.Txn) (bool, error) {
		kv, err := sysrec.Get(ctx, m.cfg.Cluster, sysrec.PolicyKey(ks))
		if err != nil {
			return false, err
		}
		old := &metapb.PolicyRecord{KeyspaceId: uint64(ks)}
		if err := sysrec.Decode(kv, old); err != nil {
			return false, err
		}
		set.Generation = old.Generation
		if proto.Equal(set, old) {
			return false, nil // it is so, perhaps since a try whose outcome was not known
		}
		if p.Generation != old.Generation {
			return false, &base.Refused{For: base.RefusedChanged, Reason: fmt.Sprintf("the policy was changed meanwhile: it is at generation %d, and the change was made of %d", old.Generation, p.Generation),
				Instead: "look at it (cairn policy show) and set it again"}
		}
		whole, err := m.survey(ctx, r, status)
		if err != nil {
			return false, err
		}
		if warnings, err = whole.judgePolicy(ks, set); err != nil {
			return false, err
		}
		set.Generation = old.Generation + 1
		t.At(sysrec.PolicyKey(ks), kv.ModRevision)
		t.PutMessage(sysrec.PolicyKey(ks), set)
		return !dryRun, nil
	})
	if err != nil {
		return nil, nil, err
	}
	m.cfg.Logger.Info("policy set", "keyspace", keyspace, "policy", words(set), "dry_run", dryRun)
	return set, warnings, nil
}

// words are what of a policy somebody set.
func words(p *metapb.PolicyRecord) string {
	var parts []string
	for _, k := range policy.Keys() {
		if v := k.Get(p); v != k.Get(&metapb.PolicyRecord{}) {
			parts = append(parts, k.Name+"="+v)
		}
	}
	return strings.Join(parts, " ")
}
