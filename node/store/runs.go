package store

import (
	"bytes"
	"slices"
	"sync"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
)

// A page of changes costs a walk over all that was written since, wherever keys are not written in the order of time. So a walk gathers
// several pages, and what is more than one is kept for a while: whoever is far behind asks for the next page in a moment, and after a
// restart many watches ask for the same. What was written up to a revision stays what it is, so that a run can be wrong only about
// what is compacted since, and that is looked at before.

// runs are the last few of a store.
type runs struct {
	mu  sync.Mutex
	all []*run // the one that was used last is the last
}

// run is a page larger than any that is asked for.
type run struct {
	ks   base.KeyspaceID
	req  eval.ChangesRequest // that it answers
	page eval.ChangesPage
	used base.Instant
}

// has says whether a page that is asked for begins on a run.
func (r *run) has(ks base.KeyspaceID, req *eval.ChangesRequest) bool {
	later := req.From > r.req.From || req.From == r.req.From && req.FromSub >= r.req.FromSub
	before := req.From < r.page.Next || req.From == r.page.Next && req.FromSub < r.page.NextSub
	return r.ks == ks && r.req.Prev == req.Prev && later && before && (req.Cut || r.page.NextSub == 0) &&
		bytes.Compare(r.req.Start, req.Start) <= 0 && (len(r.req.End) == 0 || len(req.End) > 0 && bytes.Compare(req.End, r.req.End) <= 0)
}

// changes reads a page in a range as it is shown.
func (s *Store) changes(view *apply.View, req eval.ChangesRequest) (eval.ChangesPage, error) {
	env := view.Env()
	if req.From >= env.Counters.Compacted {
		if r := s.runs.find(env.Keyspace, &req, env.Counters.Revision, s.Now()); r != nil {
			return r.page.Part(req), nil
		}
	}
	r := &run{ks: env.Keyspace, req: req, used: s.Now()}
	r.req.MostBytes *= base.WatchRunPages
	var err error
	if r.page, err = eval.Changes(s.eng, env, r.req); err != nil {
		return eval.ChangesPage{}, err
	}
	page := r.page.Part(req)
	if page.Next < r.page.Next {
		s.runs.keep(r)
	}
	return page, nil
}

func (x *runs) find(ks base.KeyspaceID, req *eval.ChangesRequest, at base.Revision, now base.Instant) *run {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, r := range x.all {
		if r.has(ks, req) && r.page.Next <= at+1 { // else this replica is behind the one that was here
			r.used = now
			x.all = append(slices.Delete(x.all, i, i+1), r)
			return r
		}
	}
	return nil
}

func (x *runs) keep(r *run) {
	size := 0
	for i := range r.page.Events {
		size += eval.EventBytes(&r.page.Events[i])
	}
	if size > 2*r.req.MostBytes {
		return // one revision larger than all of them
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.all = append(x.all, r); len(x.all) > base.WatchRuns {
		x.all = slices.Delete(x.all, 0, 1)
	}
}

// expire drops those that nobody has asked for lately.
func (x *runs) expire(now base.Instant) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = slices.DeleteFunc(x.all, func(r *run) bool { return now.Sub(r.used) > base.WatchRunTime })
}
