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
		retry   route.Retry
		next    route.Try
		looked  bool // whether the keyspace was dropped
		doubted bool // whether the range is where it is looked for
	)
	for {
		changed := d.changes()
		asked, err := d.descriptor(ctx, ks, key)
		if err == nil {
			err = d.tryOnce(asked, retry, try)
		}
		if err == nil {
			if doubted {
				d.routes.trust(asked)
			}
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
		if next.Doubt && asked != nil {
			doubted = true
			if d.routes.doubt(asked, d.cfg.Store.Now()) {
				d.lookAgain(asked, key)
			}
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

// tryOnce tries a request at the node of a range whose turn it is. This node may be named for a range that it has no replica of, or
// only one that waits for its first snapshot: it then refuses itself as it would refuse others.
func (d *Dispatcher) tryOnce(r *metapb.RangeDescriptor, retry route.Retry, try func(*metapb.RangeDescriptor, base.NodeID) error) error {
	own := d.own(base.RangeID(r.RangeId))
	node := retry.Target(r, own)
	if node == own.Node && !own.Has {
		return d.absent(base.RangeID(r.RangeId))
	}
	return try(r, node)
}

// own is what this node has of a range.
func (d *Dispatcher) own(id base.RangeID) route.Own {
	own := route.Own{Node: d.cfg.Node, Has: d.cfg.Store.Has(id)}
	if own.Has {
		st, _ := d.cfg.Store.State(id)
		own.Leader = st.LeaderNode
	}
	return own
}

// absent refuses what was sent to a range that has no replica here.
func (d *Dispatcher) absent(id base.RangeID) error {
	return &base.RangeMoved{Range: id, Descriptors: d.routes.instead(id), Absent: true}
}

// changes returns a channel that is closed at the next change of a leader or a descriptor here.
func (d *Dispatcher) changes() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}
