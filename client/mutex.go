package client

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Mutex is a lock of a name, for the sessions of all clients; those of etcd's concurrency package and `etcdctl lock` take part in it. Who
// waits gets it in the order in which they came. A session is in it once: of two goroutines of one session, both hold it. A Mutex is for one goroutine at a time.
type Mutex struct{ contender }

// Mutex is the lock of that name.
func (s *Session) Mutex(name string) *Mutex { return &Mutex{contender{s: s, prefix: name + "/"}} }

// Lock waits until the lock is the session's. The token is larger than any that an owner had before; see Session about what it is for.
// If an error comes that is neither the session's nor ctx's, close the session to be sure that it does not get the lock yet.
func (m *Mutex) Lock(ctx context.Context) (token int64, err error) {
	return m.own(ctx, nil, true)
}

// TryLock takes the lock if nobody holds it or waits for it.
func (m *Mutex) TryLock(ctx context.Context) (token int64, held bool, err error) {
	token, err = m.own(ctx, nil, false)
	if errors.Is(err, errHeld) {
		return 0, false, nil
	}
	return token, err == nil, err
}

// Unlock frees the lock, or gives up waiting for it. It may be repeated.
func (m *Mutex) Unlock(ctx context.Context) error { return m.leave(ctx) }

// errHeld: it is another's.
var errHeld = errors.New("another session holds it")

// contender is a session in the queue for what only one may have: a key under a prefix, with the session's lease. Whose key was
// made first has it; the keys' create revisions are the tokens. All keys of a prefix lie in one range: this is what orders them. In a
// sharded keyspace that is cut within the prefix, entering is refused (SeveralRanges).
type contender struct {
	s      *Session
	prefix string
	token  int64 // of the key, once it is made
}

func (c *contender) key() string { return fmt.Sprintf("%s%x", c.prefix, c.s.lease.ID) }

// Held compares, in a transaction: the session is still in the queue as it was when it got its token. Where the keys that the
// transaction writes are in the range of the lock's, nothing is written by who has lost it.
func (c *contender) Held() *pb.Compare {
	token := c.token
	if token == 0 {
		token = -1 // 0 would hold where there is no key
	}
	return &pb.Compare{Key: []byte(c.key()), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: token}}
}

// own enters the queue, and waits until the session is its first; or, if it may not wait, leaves it.
func (c *contender) own(ctx context.Context, value []byte, wait bool) (int64, error) {
	within, done := c.s.while(ctx)
	defer done()
	first, err := c.enter(within, value)
	if err == nil && !first {
		if wait {
			err = c.wait(within)
		} else {
			err = errHeld
		}
	}
	if err == nil {
		err = c.confirm(within)
	}
	if err == nil {
		return c.token, nil
	}
	// It must not get, unseen, what nobody waits for.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.s.kv.c.cfg.RequestTimeout)
	defer cancel()
	if left := c.leave(after); left != nil && !errors.Is(err, errHeld) {
		err = errors.Join(err, left)
	} else if left != nil {
		err = left
	}
	return 0, c.s.because(err)
}

// enter makes the session's key, if it is not there, and says whether it is the first. It may be done again: the key is the session's
// alone, and one that is there is left as it is.
func (c *contender) enter(ctx context.Context, value []byte) (first bool, err error) {
	key := c.key()
	oldest := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: c.oldest()}}
	var r *TxnResult
	err = again(ctx, func() (err error) {
		r, err = c.s.kv.Txn(ctx, Txn{
			If:   If(Absent(key)),
			Then: Do(PutLeasedOp(key, value, c.s.lease.ID), oldest),
			Else: Do(GetOp(key), oldest),
		})
		return err
	})
	if err != nil {
		return false, err
	}
	c.token = r.Revision
	if !r.Succeeded {
		c.token = r.Responses[0].GetResponseRange().Kvs[0].CreateRevision
	}
	owners := r.Responses[1].GetResponseRange().Kvs
	return len(owners) == 0 || owners[0].CreateRevision == c.token, nil
}

// oldest reads the key that has been in the queue the longest.
func (c *contender) oldest() *pb.RangeRequest {
	key, end := Prefix(c.prefix).wire()
	return &pb.RangeRequest{Key: key, RangeEnd: end, SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND, Limit: 1}
}

// wait waits until nobody is in the queue in front of the session: each time for the one that is next to it.
func (c *contender) wait(ctx context.Context) error {
	kv := c.s.kv
	for {
		key, end := Prefix(c.prefix).wire()
		resp, err := kv.get(ctx, &pb.RangeRequest{
			Key: key, RangeEnd: end, MaxCreateRevision: c.token - 1, SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_DESCEND, Limit: 1, KeysOnly: true,
		})
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		if err := kv.gone(ctx, string(resp.Kvs[0].Key), resp.Header.GetRevision()); err != nil {
			return err
		}
	}
}

// gone waits until a key is deleted that was there at a revision. If it is not known any more whether it was, that is for the caller
// to read.
func (k KV) gone(ctx context.Context, key string, revision int64) error {
	for u, err := range k.Watch(ctx, WatchOptions{Span: Key(key), From: revision + 1, NoPut: true}) {
		if errors.Is(err, ErrCompacted) || err == nil && len(u.Events) > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// confirm reads that the session's key is there yet: its lease may have ended meanwhile.
func (c *contender) confirm(ctx context.Context) error {
	kv, found, err := c.s.kv.Get(ctx, c.key())
	switch {
	case err != nil:
		return err
	case !found || kv.CreateRevision != c.token:
		return ErrSessionLost
	}
	return c.s.Err()
}

// leave takes the session out of the queue.
func (c *contender) leave(ctx context.Context) error {
	return again(ctx, func() error {
		_, err := c.s.kv.Delete(ctx, c.key())
		return err
	})
}
