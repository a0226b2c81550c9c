package client

import (
	"bytes"
	"context"
	"errors"
	"iter"
)

// Election is the choice of a leader of a name among the sessions of all clients; those of etcd's concurrency package and `etcdctl elect`
// take part in it. An Election is for one goroutine at a time.
type Election struct{ contender }

// Election is that of a name.
func (s *Session) Election(name string) *Election {
	return &Election{contender{s: s, prefix: name + "/"}}
}

// ErrNotLeader: the session does not lead, any more or at all.
var ErrNotLeader = errors.New("the session does not lead")

// Campaign waits until the session leads, with a value for others to see: its address, say. The token is larger than any that a leader had
// before; see Session about what it is for.
func (e *Election) Campaign(ctx context.Context, value []byte) (token int64, err error) {
	if token, err = e.own(ctx, value, true); err != nil {
		return 0, err
	}
	// It may have been a candidate before, with another value.
	kv, found, err := e.s.kv.Get(ctx, e.key())
	if err == nil && found && !bytes.Equal(kv.Value, value) {
		err = e.Proclaim(ctx, value)
	}
	return token, e.s.because(err)
}

// Proclaim changes the leader's value. It may be repeated.
func (e *Election) Proclaim(ctx context.Context, value []byte) error {
	return again(ctx, func() error {
		r, err := e.s.kv.Txn(ctx, Txn{If: If(e.Held()), Then: Do(PutLeasedOp(e.key(), value, e.s.lease.ID))})
		if err == nil && !r.Succeeded {
			err = e.s.because(ErrNotLeader)
		}
		return err
	})
}

// Resign ends the leadership, or the candidacy. It may be repeated.
func (e *Election) Resign(ctx context.Context) error { return e.leave(ctx) }

// Leader is who leads now: the key's value is what it campaigned with, its CreateRevision the token.
func (k KV) Leader(ctx context.Context, election string) (kv KeyValue, found bool, err error) {
	resp, err := k.get(ctx, (&contender{prefix: election + "/"}).oldest())
	if err != nil || len(resp.Kvs) == 0 {
		return KeyValue{}, false, err
	}
	return keyValue(resp.Kvs[0]), true, nil
}

// Leaders hands out who leads now, and then each leader that comes and each value that one proclaims; those that follow each other
// quickly may be left out, the last one never. It ends as a Watch does.
func (k KV) Leaders(ctx context.Context, election string) iter.Seq2[KeyValue, error] {
	return func(yield func(KeyValue, error) bool) {
		var shown int64 // the revision of what was handed out last
		for {
			compacted := false
			for u, err := range k.Watch(ctx, WatchOptions{Span: Prefix(election + "/")}) {
				if compacted = errors.Is(err, ErrCompacted); compacted {
					break
				}
				var (
					kv    KeyValue
					found bool
				)
				if err == nil && (len(u.Events) > 0 || shown == 0) {
					kv, found, err = k.Leader(ctx, election)
				}
				if err != nil {
					yield(KeyValue{}, err)
					return
				}
				if found && kv.ModRevision > shown {
					shown = kv.ModRevision
					if !yield(kv, nil) {
						return
					}
				}
			}
			if !compacted {
				return
			}
			shown = 0 // handed out anew: what was missed may be it
		}
	}
}
