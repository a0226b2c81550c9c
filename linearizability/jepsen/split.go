package jepsen

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
)

// rangeClass is the family of storms over ranges.
const rangeClass = "F12"

// rangeNemeses change the ranges of the keyspace of many under the clients' hands: beside keys that were used a moment ago. By
// themselves they make nothing unwell; together with others, a node may be lost at any step of a change.
func rangeNemeses() []Nemesis {
	return []Nemesis{
		{Name: "splits", Class: rangeClass, About: "cuts ranges in two beside keys that clients use, again and again", Needs: []Capability{Ranges}, Begin: storm(split)},
		{Name: "splits-merges", Class: rangeClass, About: "cuts ranges in two and puts neighbours together, beside keys that clients use", Needs: []Capability{Ranges}, Begin: storm(split, merge)},
		{Name: "moves", Class: rangeClass, About: "has drawn ranges moved to drawn nodes and hands leaderships over, again and again", Begin: moves},
	}
}

const (
	// stormWorkers change ranges at once, so that one whose node does not answer does not end the storm.
	stormWorkers = 3
	// stormEvery is a worker's pause between two changes: clients are to work on what came of one before the next.
	stormEvery = 100 * time.Millisecond
	// changeTime bounds one change. A merge may have to bring replicas to other nodes first.
	changeTime = 10 * time.Second
)

// change does one thing to the range that holds a key, and says what it did.
type change func(ctx context.Context, cl clusterpb.ClusterClient, key []byte) (Changes, error)

func split(ctx context.Context, cl clusterpb.ClusterClient, key []byte) (Changes, error) {
	_, err := cl.SplitRange(ctx, &clusterpb.SplitRangeRequest{Keyspace: spreadName, Key: key})
	return Changes{Splits: 1}, err
}

func merge(ctx context.Context, cl clusterpb.ClusterClient, key []byte) (Changes, error) {
	_, err := cl.MergeRange(ctx, &clusterpb.MergeRangeRequest{Keyspace: spreadName, Key: key})
	return Changes{Merges: 1}, err
}

// storm makes drawn changes beside drawn keys by way of drawn nodes until the heal, which waits for those that are under way.
func storm(of ...change) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
		work := context.WithoutCancel(ctx) // it outlives the beginning
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range stormWorkers {
			r := base.NewRand(r.Uint64())
			wg.Go(func() {
				for pause(work, stop, stormEvery) {
					c.changeOnce(work, of[r.Int63n(int64(len(of)))], r)
				}
			})
		}
		heal := func(context.Context) error {
			close(stop)
			wg.Wait()
			return nil
		}
		return fmt.Sprintf("%d at a time change ranges beside keys in use", stormWorkers), heal, nil
	}
}

// changeOnce makes one change, and counts it.
func (c *Cluster) changeOnce(ctx context.Context, do change, r *base.Rand) {
	key := c.shard.draw(r)
	if len(key) == 0 {
		return
	}
	var did Changes
	err := c.ask(ctx, int(r.Int63n(int64(len(c.Nodes)))), changeTime, func(ctx context.Context, cl clusterpb.ClusterClient) (err error) {
		did, err = do(ctx, cl, key)
		return err
	})
	switch status.Code(err) {
	case codes.OK:
	case codes.FailedPrecondition, codes.Aborted, codes.InvalidArgument:
		did = Changes{Refused: 1}
	default:
		did = Changes{Unanswered: 1}
	}
	c.shard.note(did)
}
