package watches

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Watches that wait: what a server's memory grows by, each on a key of its own, over a hundred streams.
const idleStreams = 100

func (s *Suite) idle(ctx context.Context, sides *[2]side) error {
	w := s.table()
	fmt.Fprintf(w, "%d idle watches over %d streams\tbytes a watch, all nodes together\tcores while they wait\n", s.Idle, idleStreams)
	for i := range sides {
		x := &sides[i]
		bytes, cores, err := s.idleBlock(ctx, x)
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.3f\n", x.name, bytes, cores)
	}
	return w.Flush()
}

func (s *Suite) idleBlock(ctx context.Context, x *side) (bytes, cores float64, err error) {
	before, err := x.cluster.Usage()
	if err != nil {
		return 0, 0, err
	}
	var streams []*stream
	defer func() {
		for _, st := range streams {
			err = errors.Join(err, st.close())
		}
	}()
	made, began := 0, time.Now()
	for i := range idleStreams {
		st, err := watch(x.cluster.Endpoints[i%len(x.cluster.Endpoints)])
		if err != nil {
			return 0, 0, err
		}
		streams = append(streams, st)
		for made < (i+1)*s.Idle/idleStreams {
			if err := st.create(1, &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "idle-%09d", made)}); err != nil {
				return 0, 0, err
			}
			made++
		}
	}
	s.Say("%s: %d watches made in %s", x.name, made, time.Since(began).Round(time.Second))
	if err := wait(ctx, 2*s.Block); err != nil { // a collection has come, and what making them took is given back in part
		return 0, 0, err
	}
	after, err := x.cluster.Usage()
	if err != nil {
		return 0, 0, err
	}
	if err := wait(ctx, s.Block); err != nil {
		return 0, 0, err
	}
	used, err := x.used(after)
	return (float64(after.Anon) - float64(before.Anon)) / float64(made), used.Seconds() / s.Block.Seconds(), err
}
