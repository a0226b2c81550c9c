package raftgroup

import (
	"slices"
	"sort"
)

// Terms is the term of each index of a log, as runs: few, because a term lasts long. The zero value is empty.
type Terms struct{ runs []termRun }

type termRun struct {
	from uint64 // first index of the run
	term uint64
}

// clip returns the same without room for more.
func (t *Terms) clip() Terms { return Terms{runs: slices.Clip(slices.Clone(t.runs))} }

// At returns the term of the entry at index, 0 if the index lies before the first run.
func (t *Terms) At(index uint64) uint64 {
	for i := len(t.runs) - 1; i >= 0; i-- {
		if t.runs[i].from <= index {
			return t.runs[i].term
		}
	}
	return 0
}

// append says that from index on the log has this term: what was known of later indexes is gone.
func (t *Terms) append(index, term uint64) {
	n := len(t.runs)
	for n > 0 && t.runs[n-1].from >= index {
		n--
	}
	if n != len(t.runs) {
		// Terms is handed out by value: a run that somebody may still see is not overwritten.
		t.runs = append([]termRun(nil), t.runs[:n]...)
	}
	if n == 0 || t.runs[n-1].term != term {
		t.runs = append(t.runs, termRun{index, term})
	}
}

// truncate forgets the indexes up to and with index.
func (t *Terms) truncate(index uint64) {
	i := 0
	for i+1 < len(t.runs) && t.runs[i+1].from <= index+1 {
		i++
	}
	t.runs = append([]termRun(nil), t.runs[i:]...)
	if len(t.runs) > 0 && t.runs[0].from <= index {
		t.runs[0].from = index + 1
	}
}

// loadTerms finds the runs of the log (first..last) with a binary search for the end of each: terms only grow.
func loadTerms(first, last uint64, term func(uint64) (uint64, error)) (Terms, error) {
	var t Terms
	for at := first; at <= last; {
		now, err := term(at)
		if err != nil {
			return Terms{}, err
		}
		t.runs = append(t.runs, termRun{at, now})
		var failed error
		n := sort.Search(int(last-at), func(i int) bool {
			x, err := term(at + 1 + uint64(i))
			if err != nil {
				failed = err
			}
			return x != now
		})
		if failed != nil {
			return Terms{}, failed
		}
		at += 1 + uint64(n)
	}
	return t, nil
}
