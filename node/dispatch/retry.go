package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
)

// retry tries a request on the node that most likely leads the key's range, and again as long as the errors say that
// nothing has happened and ctx lasts (route.Retry decides). A pause ends early when a leader or a descriptor changes here.
func (d *Dispatcher) retry(ctx context.Context, ks base.KeyspaceID, key []byte, try func(*metapb.RangeDescriptor, base.NodeID) error) error {
	var (
		retry  route.Retry
		next   route.Try
		looked bool // whether the keyspace was dropped
	)
	for tries := 0; ; tries++ {
		changed := d.changes()
		asked, err := d.descriptor(ctx, ks, key)
		if err == nil {
			err = try(asked, d.target(asked, next.Node, tries))
		}
		if err == nil {
			return nil
		}
		var moved *base.RangeMoved
		if errors.As(err, &moved) && asked != nil {
			if several := route.Several(moved, asked, ks, key); several != nil {
				d.routes.learn(moved.Descriptors...)
				several.Descriptors = d.routes.beside(several.Descriptors)
				return several
			}
			d.routes.moved(asked, moved.Descriptors)
		}
		if retry, next = retry.After(err); next.GiveUp {
			return err
		}
		if next.Wait >= base.RetryMax && !looked && nowhere(err) {
			looked = true
			if d.dropped(ctx, ks) {
				return &base.KeyspaceDropped{Keyspace: ks}
			}
		}
		if next.Wait > 0 {
			timer := time.NewTimer(next.Wait)
			select {
			case <-changed:
			case <-timer.C:
			case <-ctx.Done():
			case <-d.ctx.Done():
			}
			timer.Stop()
		}
		switch {
		case d.ctx.Err() != nil:
			return base.ErrStopped
		case ctx.Err() != nil:
			return err // it says more than that the time is over
		}
	}
}

// nowhere says whether an error means that it is not known where keys are: for long only if they are nowhere.
func nowhere(err error) bool {
	var moved *base.RangeMoved
	var none *route.NoRange
	return errors.As(err, &moved) || errors.As(err, &none)
}

// dropped says whether a keyspace is no more, if that is known in the time of a pause: what knows it may be without a leader.
func (d *Dispatcher) dropped(ctx context.Context, ks base.KeyspaceID) bool {
	if d.cfg.Gone == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, base.RetryMax)
	defer cancel()
	gone, err := d.cfg.Gone(ctx, ks)
	return err == nil && gone
}

// target is the node to try: the hinted one, the leader that a local replica knows, or the replicas in turn.
func (d *Dispatcher) target(desc *metapb.RangeDescriptor, hint base.NodeID, tries int) base.NodeID {
	if hint != 0 {
		return hint
	}
	id := base.RangeID(desc.RangeId)
	// One that waits for its first snapshot may have been removed, and know of a leader of long ago.
	if st, ok := d.cfg.Store.State(id); ok && st.LeaderNode != 0 && d.cfg.Store.Has(id) {
		return st.LeaderNode
	}
	if d.cfg.Store.Has(id) && tries == 0 {
		return d.cfg.Node // it answers at once, and wakes nobody
	}
	return base.NodeID(desc.Replicas[tries%len(desc.Replicas)].NodeId)
}

// changes returns a channel that is closed at the next change of a leader or a descriptor here.
func (d *Dispatcher) changes() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}
