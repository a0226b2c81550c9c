package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// confirm looks again at what looked wrong, until it does no longer, or has for as long as the index may take to follow. It
// returns the last look.
func (c *checker) confirm(ctx context.Context, first *look) (*look, error) {
	l, left := first, c.problems(first)
	for n := 1; n < base.CheckLooks && (len(left) > 0 || len(l.unseen) > 0); n++ {
		c.progress(fmt.Sprintf("looking again at %d differences and %d ranges that did not answer", len(left), len(l.unseen)), n, base.CheckLooks)
		select {
		case <-time.After(c.cfg.LookPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		next, err := c.look(ctx)
		if err != nil {
			return nil, err
		}
		now := map[string]problem{}
		for _, p := range c.problems(next) {
			now[p.key] = p
		}
		still := left[:0]
		for _, p := range left {
			if again, ok := now[p.key]; ok {
				still = append(still, again)
			}
		}
		c.sum.Settled += uint64(len(left) - len(still))
		l, left = next, still
	}
	slices.SortStableFunc(left, func(a, b problem) int {
		return int(a.finding.Part) - int(b.finding.Part)
	})
	for _, p := range left {
		c.found(p.finding)
	}
	for id, u := range l.unseen {
		c.unseen(&clusterpb.CheckUnseen{Keyspace: l.name(base.KeyspaceID(u.last.KeyspaceId)), RangeId: uint64(id), Reason: u.err.Error()})
	}
	return l, nil
}

// onlyGrown reads the index once more: no range's generation there has gone back since the first look.
func (c *checker) onlyGrown(ctx context.Context, first *look) error {
	now := &look{entries: map[base.KeyspaceID][]entry{}}
	for _, index := range []base.KeyspaceID{base.KeyspaceRoot, base.KeyspaceMeta} {
		if err := c.readIndex(ctx, now, index); err != nil {
			return errors.Join(fmt.Errorf("the index in %s cannot be read", index), err)
		}
	}
	for _, s := range first.spaces {
		was := map[uint64]entry{}
		for _, e := range first.entries[s.id] {
			was[e.RangeId] = e
		}
		for _, e := range now.entries[s.id] {
			if old, ok := was[e.RangeId]; ok && e.Generation < old.Generation {
				c.found(&clusterpb.CheckFinding{Part: index, Keyspace: s.name, RangeId: e.RangeId, What: "the index's entry has gone back since the check began",
					Here: "before: " + desc.Format(old.RangeDescriptor), There: "now: " + desc.Format(e.RangeDescriptor), Next: nextAhead})
			}
		}
	}
	return nil
}

// name is what a keyspace is called.
func (l *look) name(ks base.KeyspaceID) string {
	for _, s := range l.spaces {
		if s.id == ks {
			return s.name
		}
	}
	return ks.String()
}
