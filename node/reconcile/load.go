package reconcile

import (
	"fmt"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/store"
)

// watchLoads keeps the rates of the ranges in use, and cuts those in two that this node leads and that are served too many
// requests. What a range is served and where it is best cut is the store's to say (meta/load).
func (r *Reconciler) watchLoads() {
	tick := time.NewTicker(base.LoadInterval)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		for _, hot := range r.cfg.Store.Loads(r.cfg.SplitQPS) {
			if r.ctx.Err() != nil {
				return
			}
			r.load(hot)
		}
		r.cfg.Reports.Rates(r.cfg.Store.Rates())
	}
}

// load has a hot range split if that helps. If it does not work out, the range is judged again after another window; that no cut
// helps is said once, and not as long as it lasts.
func (r *Reconciler) load(hot store.Hot) {
	id := base.RangeID(hot.Descriptor.RangeId)
	log := r.cfg.Logger.With("range", id, "requests_per_second", int64(hot.Rate), "at", printable(hot.Best.Key),
		"left", percent(hot.Best.Left), "right", percent(hot.Best.Right), "across", percent(hot.Best.Across))
	if !hot.Helps {
		if hot.Windows == 1 {
			log.Info("a range is hot and stays whole, for no cut would help: its load is one key's, or of keys that only grow, or of requests over many keys")
		}
		return
	}
	done, err := r.cut(hot.Descriptor, hot.Best.Key)
	switch {
	case err != nil && r.ctx.Err() == nil:
		log.Info("a range that is hot was not split; it is tried again", "error", err)
	case done:
		r.splits.load.Add(1)
		log.Info("range split: it was hot")
	}
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }
