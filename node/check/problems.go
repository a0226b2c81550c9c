package check

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
)

// problem is something that looked wrong in one look. Its key says what stands still: seen at every look, it is wrong.
type problem struct {
	key     string
	finding *clusterpb.CheckFinding
	of      base.KeyspaceID // of a broken entry
}

const (
	tiling   = clusterpb.CheckPart_CHECK_PART_TILING
	index    = clusterpb.CheckPart_CHECK_PART_INDEX
	replicas = clusterpb.CheckPart_CHECK_PART_REPLICAS
)

// What to do. None of it is done by itself: what is wrong here has a cause that is to be found first.
const (
	nextIndex  = "the range's leader publishes its descriptor when it changes or a new leader begins: look at its node's log for \"descriptor not published\", and restart that node; requests find the range meanwhile"
	nextAhead  = "keep all stores as they are, and report it: a range has gone back behind what it had published"
	nextTiling = "keep all stores as they are, and report it with what cairn range ls and cairn status --ranges print: keys of this part cannot be trusted"
	nextGone   = "it leads requests astray for a moment only; it goes when the range that holds its end key publishes again: restart the node that leads that one, and report it"
)

func (c *checker) problems(l *look) []problem {
	var out []problem
	for _, p := range l.broken {
		if name := l.name(p.of); c.only == "" || c.only == name {
			p.finding.Keyspace = name
			out = append(out, p)
		}
	}
	for _, s := range l.spaces {
		indexed, own := l.sides(s.id)
		if _, ok := route.IndexKeyspace(s.id); ok {
			out = append(out, tile(s, "the index says", indexed)...)
			out = append(out, l.againstRanges(s)...)
		}
		out = append(out, tile(s, "the ranges say", own)...)
	}
	if c.only == "" {
		for ks, es := range l.entries {
			if !l.known[ks] {
				out = append(out, problem{key: fmt.Sprint("unknown ", uint64(ks)), finding: &clusterpb.CheckFinding{
					Part: index, Keyspace: ks.String(), What: fmt.Sprintf("the index lists %d ranges of a keyspace that there is not", len(es)),
					Here: desc.Format(es[0].RangeDescriptor), There: "no record of it", Next: nextGone}})
			}
		}
	}
	return out
}

// sides are a keyspace's descriptors as the index has them, and as the ranges have. A range that does not say is taken as it was
// last known: that it cannot be asked is said elsewhere.
func (l *look) sides(ks base.KeyspaceID) (indexed, own []*metapb.RangeDescriptor) {
	for _, e := range l.entries[ks] {
		indexed = append(indexed, e.RangeDescriptor)
	}
	for _, d := range l.own {
		if base.KeyspaceID(d.KeyspaceId) == ks {
			own = append(own, d)
		}
	}
	for _, u := range l.unseen {
		if base.KeyspaceID(u.last.KeyspaceId) == ks {
			own = append(own, u.last)
		}
	}
	for _, ds := range [][]*metapb.RangeDescriptor{indexed, own} {
		slices.SortFunc(ds, func(a, b *metapb.RangeDescriptor) int {
			return cmp.Or(bytes.Compare(a.Start, b.Start), cmp.Compare(a.RangeId, b.RangeId))
		})
	}
	return indexed, own
}

// tile says where descriptors, in the order of their first keys, do not cover the keyspace exactly once.
func tile(s space, whose string, ds []*metapb.RangeDescriptor) (out []problem) {
	wrong := func(id uint64, here, there, what string, args ...any) {
		out = append(out, problem{key: whose + what + here + there, finding: &clusterpb.CheckFinding{
			Part: tiling, Keyspace: s.name, RangeId: id, What: fmt.Sprintf(what, args...), Here: here, There: there, Next: nextTiling}})
	}
	if len(ds) == 0 {
		wrong(0, "no range", "-", "as %s, no range holds any key", whose)
		return out
	}
	if first := ds[0]; len(first.Start) > 0 {
		wrong(first.RangeId, desc.Format(first), "-", "as %s, no range holds the keys before %q", whose, first.Start)
	}
	last := ds[0] // that reaches farthest
	for _, d := range ds[1:] {
		switch {
		case desc.Overlap(last, d):
			wrong(d.RangeId, desc.Format(last), desc.Format(d), "as %s, two ranges hold the keys from %q", whose, d.Start)
		case !bytes.Equal(last.End, d.Start):
			wrong(d.RangeId, desc.Format(last), desc.Format(d), "as %s, no range holds the keys from %q to %q", whose, last.End, d.Start)
		}
		if len(last.End) > 0 && (len(d.End) == 0 || bytes.Compare(d.End, last.End) > 0) {
			last = d
		}
	}
	if len(last.End) > 0 {
		wrong(last.RangeId, desc.Format(last), "-", "as %s, no range holds the keys from %q to the end", whose, last.End)
	}
	return out
}

// againstRanges compares the index's entries with what the ranges say.
func (l *look) againstRanges(s space) (out []problem) {
	wrong := func(id uint64, kind string, here, there *metapb.RangeDescriptor, what, next string) {
		f := &clusterpb.CheckFinding{Part: index, Keyspace: s.name, RangeId: id, What: what, Next: next, Here: "nothing", There: "nothing"}
		if here != nil {
			f.Here = "index: " + desc.Format(here)
		}
		if there != nil {
			f.There = "range: " + desc.Format(there)
		}
		// The range may go on changing; what counts is that the entry stands still.
		out = append(out, problem{key: fmt.Sprint("index ", id, " ", kind, " ", here.GetGeneration()), finding: f})
	}
	listed := map[base.RangeID]bool{}
	for _, e := range l.entries[s.id] {
		id := base.RangeID(e.RangeId)
		listed[id] = true
		own, holder := l.own[id], l.gone[id]
		switch {
		case holder != nil:
			wrong(e.RangeId, "gone", e.RangeDescriptor, holder, fmt.Sprintf("the index lists a range that no longer exists: %s holds its keys", base.RangeID(holder.RangeId)), nextGone)
		case own == nil: // it could not be asked
		case e.Generation > own.Generation:
			wrong(e.RangeId, "ahead", e.RangeDescriptor, own, "the index is ahead of the range", nextAhead)
		case e.Generation < own.Generation:
			wrong(e.RangeId, "behind", e.RangeDescriptor, own, "the index has stayed behind the range", nextIndex)
		case !desc.Equal(e.RangeDescriptor, own):
			wrong(e.RangeId, "differs", e.RangeDescriptor, own, "the index and the range differ at the same generation", nextAhead)
		}
	}
	for id, own := range l.own {
		if base.KeyspaceID(own.KeyspaceId) == s.id && !listed[id] {
			wrong(own.RangeId, "unlisted", nil, own, "the index does not list this range", nextIndex)
		}
	}
	return out
}

func brokenEntry(in base.KeyspaceID, key []byte, err error) problem {
	here := "its key is no index key"
	if err != nil {
		here = err.Error()
	}
	return problem{of: in, key: "broken " + string(key), finding: &clusterpb.CheckFinding{Part: index,
		What: fmt.Sprintf("the index's entry %q cannot be read", key), Here: here, There: "-", Next: nextTiling}}
}

func misplacedEntry(ks base.KeyspaceID, end []byte, d *metapb.RangeDescriptor) problem {
	return problem{of: ks, key: fmt.Sprintf("misplaced %d %q", ks, end), finding: &clusterpb.CheckFinding{Part: index, RangeId: d.RangeId,
		What: fmt.Sprintf("the index lists a range under the end %q, which is not its own", end), Here: desc.Format(d), There: "-", Next: nextTiling}}
}
