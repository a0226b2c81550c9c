package raftgroup

// Terms is the term of each index of a log, as runs: few, because a term lasts long. The zero value is empty.
type Terms struct{ runs []termRun }

type termRun struct {
	from uint64 // first index of the run
	term uint64
}

// At returns the term of the entry at index, 0 if the index lies before the first run.
func (t *Terms) At(index uint64) uint64 {
	for i := len(t.runs) - 1; i >= 0; i-- {
		if t.runs[i].from <= index {
			return t.runs[i].term
		}
	}
	return 0
}
