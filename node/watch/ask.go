package watch

import (
	"context"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// ask has one of the hub's questions answered. The hub bounds how many there are at once; one goroutine is each, for as long as it
// takes.
func (w *Watches) ask(a *watch.Ask) {
	ctx, cancel := context.WithCancel(w.ctx)
	w.asks[a.ID] = cancel
	w.wg.Go(func() {
		defer cancel()
		answer := w.answer(ctx, a)
		w.in.do(func(h *watch.Hub) {
			w.forget(a.ID)
			h.Answered(a.ID, answer)
		})
	})
}

// forget ends a question that was answered, or whose answer is not wanted.
func (w *Watches) forget(id uint64) {
	if cancel := w.asks[id]; cancel != nil {
		cancel()
		delete(w.asks, id)
	}
}

func (w *Watches) answer(ctx context.Context, a *watch.Ask) (out watch.Answer) {
	switch a.Kind {
	case watch.Pull:
		w.counts.pulls.Add(1)
		out.Page, out.Err = w.pull(ctx, a)
	case watch.Close:
		w.counts.closes.Add(uint64(len(a.Quiet)))
		out.Err = w.cfg.Ranges.Close(ctx, a.Keyspace, a.Quiet)
	case watch.Now:
		out.Revision, out.Err = w.cfg.Ranges.Now(ctx, a.Keyspace, a.Start, a.End)
	}
	if out.Err != nil && ctx.Err() == nil {
		w.counts.failed.Add(1)
		w.cfg.Logger.Debug("a question of the watches is asked again", "kind", a.Kind, "keyspace", a.Keyspace, "start", string(a.Start), "error", out.Err)
	}
	return out
}

// pull reads a page of changes, or waits for some.
func (w *Watches) pull(ctx context.Context, a *watch.Ask) (*watch.Page, error) {
	req := &rangepb.ChangesRequest{
		KeyspaceId: uint64(a.Keyspace), Start: a.Start, End: a.End, From: int64(a.From), PrevKv: a.Prev, Known: int64(a.Known),
	}
	if a.Wait {
		req.WaitMicros = uint64(base.WatchPollTime.Microseconds())
	}
	resp, err := w.cfg.Ranges.Changes(ctx, req)
	if err != nil {
		return nil, err
	}
	return watch.DecodePage(resp)
}
