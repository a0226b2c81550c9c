package checkers

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// What is appended to lists, and seen of them, says in which order its operations were: an element is appended once, so that who
// reads a list has seen all the appends that made it, in their order, and none after them. This is the idea of Elle (Kingsbury
// and Alvaro, Inferring Isolation Anomalies from Experimental Observations, VLDB 2020). An append is here a put of the longer
// list under a comparison: it says itself on what it stands, and the comparisons that held are reads.

// appendage is the lists of a history, and what each operation did to them and saw of them.
type appendage struct {
	prefix  string
	lists   []*list
	byName  map[string]int32
	txns    []txn // the operations that have to do with lists, in the order in which they were invoked
	doubled []doubled
	deletes *linearizability.Op // one that may have deleted lists: then nothing can be said
	work    int                 // steps that were taken, so that a test can see how they grow
}

// list is one key. A place counts elements: place 0 is the list that is empty, or not there.
type list struct {
	name    string
	puts    []appending      // of all operations
	owner   map[string]int32 // who appended each element: who put the shortest list with it
	mods    map[int64][]byte // the list at revisions that were seen
	longest []byte           // what anybody read, or was told to have written
	shown   int32            // who did
	order   []string         // its elements
	place   map[string]int32 // of each of these, from 1
	by      []int32          // by place: who appended it; -1: nobody, or somebody who had failed for certain
	after   []int32          // by place: the next place whose by is somebody; 0: none
}

// txn is one operation.
type txn struct {
	op       *linearizability.Op
	happened bool // it was answered, or something that it appended was seen
	current  bool // it was to see the newest state, so that it has its place in real time
	looks    []look
	spans    []span
	puts     []appending
}

// look is what an operation saw of a list: all of it, or, of a comparison that held, its revision.
type look struct {
	list  int32
	value []byte
	mod   int64 // above 0: value is what the list was then
}

// span is a read of all lists between two keys. What is not among its looks was not there.
type span struct {
	key, end []byte
	from, to int // its looks
}

// appending is a put of a longer list.
type appending struct {
	txn, list int32
	value     []byte
}

// doubled is an element that two operations append.
type doubled struct {
	list    int32
	element string
	ops     [2]*linearizability.Op
}

// takeApart finds the lists below a prefix.
func takeApart(h *linearizability.History, prefix string) *appendage {
	a := &appendage{prefix: prefix, byName: make(map[string]int32)}
	for _, op := range h.Ops {
		a.take(op)
	}
	a.absent()
	for i, l := range a.lists {
		a.own(int32(i), l)
		l.arrange(a.txns)
		a.work += len(l.order)
	}
	return a
}

// take adds an operation.
func (a *appendage) take(op *linearizability.Op) {
	t := txn{op: op, happened: op.Outcome == linearizability.OK, current: true}
	switch r := op.Request.(type) {
	case *pb.RangeRequest:
		if t.happened {
			t.current = r.Revision == 0 && !r.Serializable
		}
		a.one(&t, r, op.Response)
	case *pb.PutRequest, *pb.DeleteRangeRequest:
		a.one(&t, r, op.Response)
	case *pb.TxnRequest:
		a.transaction(&t, r)
	}
	if len(t.looks)+len(t.spans)+len(t.puts) == 0 {
		return
	}
	at := int32(len(a.txns))
	for i := range t.puts {
		t.puts[i].txn = at
		l, p := a.lists[t.puts[i].list], t.puts[i]
		l.puts = append(l.puts, p)
		if t.happened {
			l.show(at, p.value)
			l.mods[revisionOf(op)] = p.value
		}
	}
	if t.happened {
		for _, l := range t.looks {
			a.lists[l.list].show(at, l.value)
		}
	}
	a.work += len(t.looks) + len(t.puts)
	a.txns = append(a.txns, t)
}

// transaction takes apart the branch that was carried out; of a transaction without an answer what it would put in either.
func (a *appendage) transaction(t *txn, r *pb.TxnRequest) {
	resp, _ := t.op.Response.(*pb.TxnResponse)
	branches, held := [][]*pb.RequestOp{r.Success, r.Failure}, false
	switch {
	case !t.happened: // if it is seen, and only what it puts if the comparisons hold can be, they held
		held = !slices.ContainsFunc(r.Failure, func(o *pb.RequestOp) bool { return o.GetRequestPut() != nil })
	case resp.Succeeded:
		branches, held = branches[:1], true
	default:
		branches = branches[1:]
	}
	for _, branch := range branches {
		for i, o := range branch {
			var got proto.Message
			if t.happened && i < len(resp.Responses) {
				got = resp.Responses[i].GetResponseRange()
			}
			switch {
			case o.GetRequestPut() != nil:
				a.one(t, o.GetRequestPut(), nil)
			case o.GetRequestDeleteRange() != nil:
				a.one(t, o.GetRequestDeleteRange(), nil)
			case o.GetRequestRange() != nil:
				a.one(t, o.GetRequestRange(), got)
			}
		}
	}
	for _, c := range r.Compare {
		l := a.list(c.Key)
		switch {
		case !held || l < 0 || c.Result != pb.Compare_EQUAL:
		case c.Target == pb.Compare_MOD:
			t.looks = append(t.looks, look{list: l, mod: c.GetModRevision()})
		case c.Target == pb.Compare_VALUE:
			t.looks = append(t.looks, look{list: l, value: c.GetValue()})
		}
	}
}

// one adds one request, by itself or of a transaction.
func (a *appendage) one(t *txn, req, resp proto.Message) {
	switch r := req.(type) {
	case *pb.PutRequest:
		if i := a.list(r.Key); i >= 0 {
			t.puts = append(t.puts, appending{list: i, value: r.Value})
		}
	case *pb.DeleteRangeRequest:
		if bytes.HasPrefix(r.Key, []byte(a.prefix)) && t.op.Outcome != linearizability.Failed {
			a.deletes = t.op
		}
	case *pb.RangeRequest:
		if got, ok := resp.(*pb.RangeResponse); ok && got != nil && !r.CountOnly && !r.KeysOnly && bytes.HasPrefix(r.Key, []byte(a.prefix)) {
			a.read(t, r, got)
		}
	}
}

// read adds what a read saw.
func (a *appendage) read(t *txn, r *pb.RangeRequest, got *pb.RangeResponse) {
	from := len(t.looks)
	for _, kv := range got.Kvs {
		if i := a.list(kv.Key); i >= 0 {
			t.looks = append(t.looks, look{list: i, value: kv.Value})
			a.lists[i].mods[kv.ModRevision] = kv.Value
		}
	}
	filtered := r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	switch {
	case got.More || filtered: // of what is missing nothing is known
	case len(r.RangeEnd) > 0:
		t.spans = append(t.spans, span{r.Key, r.RangeEnd, from, len(t.looks)})
	case len(got.Kvs) == 0:
		t.looks = append(t.looks, look{list: a.list(r.Key)})
	}
}

// list finds or makes a list; -1 if the key is not below the prefix.
func (a *appendage) list(key []byte) int32 {
	if i, ok := a.byName[string(key)]; ok {
		return i
	}
	if !bytes.HasPrefix(key, []byte(a.prefix)) {
		return -1
	}
	i := int32(len(a.lists))
	a.lists = append(a.lists, &list{name: string(key), owner: make(map[string]int32), mods: make(map[int64][]byte), shown: -1})
	a.byName[string(key)] = i
	return i
}

// own finds whose the elements of a list are. Who puts an element of another's has seen it in a shorter list: so of the shortest
// put with an element the ones at its end are new, and are what that operation appends.
func (a *appendage) own(i int32, l *list) {
	slices.SortStableFunc(l.puts, func(x, y appending) int { return cmp.Compare(len(x.value), len(y.value)) })
	for _, p := range l.puts {
		rest, e := cutLast(p.value)
		if who, ok := l.owner[string(e)]; ok && who != p.txn {
			a.doubled = append(a.doubled, doubled{i, string(e), [2]*linearizability.Op{a.txns[who].op, a.txns[p.txn].op}})
		}
		for ; len(e) > 0; rest, e = cutLast(rest) {
			if _, ok := l.owner[string(e)]; ok {
				break
			}
			l.owner[string(e)] = p.txn
			a.work++
		}
	}
}

// cutLast parts a list into its last element and what stands before it.
func cutLast(value []byte) (rest, last []byte) {
	value = bytes.TrimRight(value, " ")
	i := bytes.LastIndexByte(value, ' ')
	return value[:max(i, 0)], value[i+1:]
}

// beginsWith says whether a list begins with the elements of another.
func beginsWith[T string | []byte](list, start T) bool {
	return len(start) == 0 || len(list) >= len(start) && string(list[:len(start)]) == string(start) && (len(list) == len(start) || list[len(start)] == ' ')
}

func (l *list) show(at int32, value []byte) {
	if l.shown < 0 || len(value) > len(l.longest) {
		l.longest, l.shown = value, at
	}
}

// absent adds, to the reads of spans, the lists of which they say that they are not there.
func (a *appendage) absent() {
	order := make([]int32, len(a.lists))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(x, y int32) int { return strings.Compare(a.lists[x].name, a.lists[y].name) })
	there := make([]int, len(a.lists)) // in which span a list was seen last
	now := 0
	for i := range a.txns {
		t := &a.txns[i]
		for _, s := range t.spans {
			now++
			for _, l := range t.looks[s.from:s.to] {
				there[l.list] = now
			}
			at := sort.Search(len(order), func(i int) bool { return a.lists[order[i]].name >= string(s.key) })
			for ; at < len(order) && (string(s.end) == "\x00" || a.lists[order[at]].name < string(s.end)); at++ {
				a.work++
				if there[order[at]] != now {
					t.looks = append(t.looks, look{list: order[at]})
				}
			}
		}
	}
}

// arrange gives a list's elements their places, and marks who happened because what it appended was seen.
func (l *list) arrange(txns []txn) {
	l.order = strings.Fields(string(l.longest))
	l.place = make(map[string]int32, len(l.order))
	l.by, l.after = make([]int32, len(l.order)+1), make([]int32, len(l.order)+1)
	l.by[0] = -1
	for i, e := range l.order {
		l.place[e] = int32(i + 1)
		who, ok := l.owner[e]
		if !ok || txns[who].op.Outcome == linearizability.Failed {
			who = -1
		} else {
			txns[who].happened = true
		}
		l.by[i+1] = who
	}
	next := int32(0)
	for i := len(l.order); i >= 0; i-- {
		l.after[i] = next
		if l.by[i] >= 0 {
			next = int32(i)
		}
	}
}

// placeOf is up to which place a look saw its list; -1 if it is not known, or does not fit the others'.
func (l *list) placeOf(v look) int32 {
	if v.mod > 0 {
		var known bool
		if v.value, known = l.mods[v.mod]; !known {
			return -1
		}
	}
	if _, e := cutLast(v.value); len(e) > 0 && beginsWith(l.longest, v.value) {
		return l.place[string(e)]
	} else if len(e) > 0 {
		return -1
	}
	return 0
}
