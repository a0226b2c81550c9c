package eval

import (
	"bytes"
	"errors"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// The end of a lease deletes all keys that it holds in one revision, as in etcd, whatever their number: a client may rely on it that they go
// together. So it is one command, which must be cheap for each key. A few keys are looked up as every write looks them up. From the
// first on that is one too many the index and the data are walked side by side, the index goes as one span, and
// nothing is remembered of each key: what is left is a step of two iterators, and a tombstone (BenchmarkRevoke of meta/apply).

// fewHeld is how many keys of a lease are deleted one by one: for fewer an iterator of their own, and the deletion of a span, which
// the engine carries along until it is compacted, cost more than they save.
const fewHeld = 64

// DeleteLeased deletes all keys of the range that a lease holds, in their order and in one revision. It returns how many there were.
func (p *Pass) DeleteLeased(env *Env, id int64) (deleted int, err error) {
	w := p.begin(env)
	span := keys.RangeLeaseKeySpan(env.Range, id, nil)
	err = walk(p.b, span, func(it engine.Iterator) (more bool, err error) { // what is written meanwhile, the iterator does not see
		deleted++
		if deleted == fewHeld+1 {
			if err := w.beginMany(); err != nil {
				return false, err
			}
		}
		return true, w.deleteHeld(it.Key(), id)
	})
	if w.along != nil {
		if cerr := w.along.it.Close(); err == nil {
			err = cerr
		}
		if err == nil && !mutant.Is(mutant.LeaseIndexForgets) {
			err = p.b.DeleteRange(span.Start, span.End)
		}
	}
	w.end()
	return deleted, err
}

// beginMany has the rest of the command find keys in their order.
func (w *write) beginMany() error {
	if err := w.find.close(); err != nil { // nobody has to tell it of each key
		return err
	}
	span := keys.DataSpan(w.ks, w.env.Start, w.env.End)
	it, err := w.p.b.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return err
	}
	w.along = &ascent{it: it}
	return nil
}

var errNotHeld = errors.New("the index of leases has a key that the lease does not hold")

func (w *write) deleteHeld(entry []byte, id int64) error {
	_, key, _ := keys.LeaseOf(entry)
	prev, prefix, err := w.held(key)
	switch {
	case err != nil:
		return err
	case prev.Lease != id:
		return &base.Corruption{Where: keys.Pretty(entry), Cause: errNotHeld}
	}
	if w.wantsPrev() {
		prev.Value = bytes.Clone(prev.Value)
	}
	if w.env.Events != nil || w.along == nil { // else nobody keeps it
		key = bytes.Clone(key)
	}
	return w.bury(key, prefix, &prev)
}

// held is the newest version of a key, one without a lease if there is none, and the prefix of its engine key.
func (w *write) held(key []byte) (rec Record, prefix []byte, err error) {
	if w.along != nil {
		rec, err = w.along.find(w.ks, key)
		return rec, w.along.prefix(), err
	}
	rec, _, err = w.find.findLive(w.ks, key, newest)
	return rec, w.find.key[:len(w.find.key)-keys.RevisionLen], err
}

// ascent finds the newest versions of keys that are asked for in their order. Keys that follow each other in the data cost a step each.
type ascent struct {
	it    engine.Iterator
	key   []byte // scratch: the engine key that is looked for
	seeks int    // how often it seeks before a step is tried again
	begun bool
}

// seeksBeforeStep is how many keys are sought after one that did not follow the one before: a step in vain costs about as much as a seek.
const seeksBeforeStep = 16

func (a *ascent) prefix() []byte { return a.key[:len(a.key)-keys.RevisionLen] }

// find returns the newest version of a key, a tombstone or a value; one of no revision if there is none. Record.Value is valid until
// the next call.
func (a *ascent) find(ks base.KeyspaceID, key []byte) (Record, error) {
	a.key = keys.Data(a.key[:0], ks, key, newest)
	found := false
	if a.seeks > 0 {
		a.seeks--
	} else if a.begun && a.it.NextPrefix() {
		if found = a.stands(); !found {
			a.seeks = seeksBeforeStep
		}
	}
	a.begun = true
	if !found && (!a.it.SeekGE(a.key) || !a.stands()) {
		return Record{}, a.it.Error()
	}
	_, mod, err := splitVersion(a.it.Key())
	if err != nil {
		return Record{}, err
	}
	v, err := a.it.Value()
	if err != nil {
		return Record{}, err
	}
	rec, err := DecodeRecord(mod, v)
	if err != nil {
		return Record{}, corruptRecord(a.it.Key(), err)
	}
	return rec, nil
}

// stands says whether the iterator is on a version of the key.
func (a *ascent) stands() bool {
	k := a.it.Key()
	return len(k) == len(a.key) && bytes.Equal(k[:len(k)-keys.RevisionLen], a.prefix())
}
