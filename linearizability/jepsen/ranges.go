package jepsen

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability/checkers"
	"github.com/cairndb/cairn/node/join"
)

// A run has two keyspaces: `default`, of one range, and, for workloads that say where they may be cut, one that is made for the
// run, whose ranges nemeses cut and put together.

// Ranges is a workload whose keyspace may be cut: what splits and merges need.
const Ranges Capability = "ranges"

// keyspace is one of a run's.
type keyspace struct {
	id   base.KeyspaceID
	name string // as clients name it; empty: default, for which none need be named
}

func defaultKeyspace() keyspace { return keyspace{id: base.KeyspaceDefault} }

// spreadName names the keyspace of many ranges.
const spreadName = "ranges"

// shard is what a cluster knows of its keyspace of many ranges. It is safe for concurrent use.
type shard struct {
	mu   sync.Mutex
	cut  func(*base.Rand) []byte // draws a key beside what clients use now; nil if it finds none
	done Changes
}

// Changes are what nemeses made of ranges, as far as they were answered.
type Changes struct {
	Splits     int `json:"splits"`
	Merges     int `json:"merges"`
	Moves      int `json:"moves"`      // relocations that were done, or taken back
	Transfers  int `json:"transfers"`  // of leaderships
	Refused    int `json:"refused"`    // a split where a range begins already, a merge of the last one, of what changed meanwhile
	Unanswered int `json:"unanswered"` // they may have been made
}

func (c *Changes) add(o Changes) {
	c.Splits, c.Merges = c.Splits+o.Splits, c.Merges+o.Merges
	c.Moves, c.Transfers = c.Moves+o.Moves, c.Transfers+o.Transfers
	c.Refused, c.Unanswered = c.Refused+o.Refused, c.Unanswered+o.Unanswered
}

// at has keys to cut at drawn by cut from now on. It returns what was done until then, and forgets it.
func (s *shard) at(cut func(*base.Rand) []byte) Changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.done
	s.cut, s.done = cut, Changes{}
	return was
}

func (s *shard) draw(r *base.Rand) []byte {
	s.mu.Lock()
	cut := s.cut
	s.mu.Unlock()
	if cut == nil {
		return nil
	}
	return cut(r)
}

func (s *shard) note(c Changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done.add(c)
}

// CreateKeyspace makes a keyspace of many ranges.
func (c *Cluster) CreateKeyspace(ctx context.Context, name string) (id base.KeyspaceID, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		for i := range c.Nodes {
			err = c.ask(ctx, i, statusTime, func(ctx context.Context, cl clusterpb.ClusterClient) error {
				resp, err := cl.CreateKeyspace(ctx, &clusterpb.CreateKeyspaceRequest{Name: name})
				id = base.KeyspaceID(resp.GetKeyspace().GetKeyspaceId())
				return err
			})
			if err == nil {
				return id, nil
			}
		}
		if !pause(ctx, nil, askAgain) {
			return 0, fmt.Errorf("the keyspace %s could not be made: %w", name, err)
		}
	}
}

// ask asks a node something of the cluster's own service, within a time.
func (c *Cluster) ask(ctx context.Context, i int, limit time.Duration, what func(context.Context, clusterpb.ClusterClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := join.Dial(c.Nodes[i].ClientAddr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return what(ctx, clusterpb.NewClusterClient(conn))
}

// tiled waits until the index says that ranges cover each keyspace once, and returns them. The index follows the ranges: what it
// says may be older than they are for a moment.
func (c *Cluster) tiled(ctx context.Context) ([]*clusterpb.IndexedRange, error) {
	for {
		var errs []error
		for i := range c.Nodes { // one may be unwell
			var all []*clusterpb.IndexedRange
			err := c.ask(ctx, i, statusTime, func(ctx context.Context, cl clusterpb.ClusterClient) error {
				resp, err := cl.ListRanges(ctx, &clusterpb.ListRangesRequest{})
				all = resp.GetRanges()
				return err
			})
			if err == nil {
				err = tile(all)
			}
			if err == nil {
				return all, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", c.Nodes[i].Name, err))
		}
		if !pause(ctx, nil, askAgain) {
			return nil, errors.Join(errs...)
		}
	}
}

// tile says where ranges do not cover each of their keyspaces once.
func tile(all []*clusterpb.IndexedRange) error {
	if what := checkers.Untiled(all); what != "" {
		return errors.New(what)
	}
	return nil
}
