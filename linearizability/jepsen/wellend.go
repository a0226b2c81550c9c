package jepsen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

// After everything the cluster must be well, in its own words: nobody is suspect, every replica is a voter on a node that is well,
// nothing that somebody asked for hangs without a reason, and a check of all ranges, the index and the replicas' data finds nothing.

// wellEnd looks for each of that until it is so or its time is over, and complains of what is not: in the cluster's own words, if it had any.
func (r *run) wellEnd(ctx context.Context) {
	for _, p := range []struct {
		name string
		is   func(context.Context) error
	}{
		{"all are well", r.cluster.allWell}, {"replicas are on nodes that are well", r.cluster.onLiveNodes},
		{"nothing hangs", r.cluster.nothingHangs}, {"cairn debug check", r.cluster.checked},
	} {
		limit, cancel := context.WithTimeout(ctx, r.Limits.Recovery)
		err := p.is(limit)
		for err != nil && pause(limit, nil, askAgain) {
			if now := p.is(limit); now == nil || limit.Err() == nil { // a look that was broken off has seen nothing
				err = now
			}
		}
		cancel()
		if err != nil {
			r.report.fail(-1, p.name, "%v", err)
		}
	}
}

// allWell: each node is active, is not cordoned or drained, and nothing speaks against it.
func (c *Cluster) allWell(ctx context.Context) error {
	var errs []error
	for _, n := range c.Nodes {
		r, err := c.record(ctx, n)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !active(r) || r.Cordoned || r.Draining:
			errs = append(errs, fmt.Errorf("%s: n%d is %s (%s), cordoned %t, draining %t", n.Name, r.NodeId, r.State, r.Reason, r.Cordoned, r.Draining))
		}
	}
	return errors.Join(errs...)
}

// onLiveNodes: in the index every replica is a voter on a node that is active, and no range has fewer than it should.
func (c *Cluster) onLiveNodes(ctx context.Context) error {
	all, err := c.members(ctx)
	if err != nil {
		return err
	}
	var live []uint64
	for _, m := range all {
		if active(m.Record) {
			live = append(live, m.Record.NodeId)
		}
	}
	ranges, err := c.tiled(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range ranges {
		d := r.Descriptor_
		if len(d.GetReplicas()) < min(len(c.Nodes), zones) {
			errs = append(errs, fmt.Errorf("range %d has %d replicas", d.GetRangeId(), len(d.GetReplicas())))
		}
		for _, x := range d.GetReplicas() {
			if !slices.Contains(live, x.NodeId) || x.Role != metapb.ReplicaRole_REPLICA_ROLE_VOTER {
				errs = append(errs, fmt.Errorf("range %d: replica %d on n%d is %s; well are %v", d.GetRangeId(), x.ReplicaId, x.NodeId, x.Role, live))
			}
		}
	}
	return errors.Join(errs...)
}

// nothingHangs: what goes on says what it waits for, or has nothing to wait for.
func (c *Cluster) nothingHangs(ctx context.Context) error {
	ops, err := c.running(ctx)
	for _, op := range ops {
		if !ended(op) && op.Waiting == "" {
			err = errors.Join(err, fmt.Errorf("operation %d goes on and says nothing: %s", op.OpId, opText(op)))
		}
	}
	return err
}

// checked has the cluster check itself, as `cairn debug check` does.
func (c *Cluster) checked(ctx context.Context) error {
	var wrong []error
	err := c.operator(ctx, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		wrong = nil
		in, err := cl.Check(ctx, &clusterpb.CheckRequest{})
		if err != nil {
			return err
		}
		for {
			resp, err := in.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if f := resp.GetFinding(); f != nil {
				wrong = append(wrong, fmt.Errorf("%s: range %d on n%d: %s: %s against %s", f.Part, f.RangeId, f.NodeId, f.What, f.Here, f.There))
			}
			if u := resp.GetUnseen(); u != nil {
				wrong = append(wrong, fmt.Errorf("range %d on n%d could not be looked at: %s", u.RangeId, u.NodeId, u.Reason))
			}
		}
	})
	return errors.Join(append(wrong, err)...)
}
