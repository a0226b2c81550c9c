package desc_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
)

func parse(t interface {
	Helper()
	Fatal(...any)
}, s string,
) *metapb.RangeDescriptor {
	t.Helper()
	d, err := desctest.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestValidate(t *testing.T) {
	for _, c := range []struct{ d, wrong string }{
		{"r4 default [-∞, +∞) gen 1: 1@n1 next 2", ""},
		{"r4 ks9 [a, b) gen 7: 1@n1 3@n3(learner) 4@n2 next 5", ""},
		{"r4 ks9 [a, b) gen 7: 1@n1(outgoing) 3@n3(incoming) next 4", ""},
		{"r0 default [-∞, +∞) gen 1: 1@n1 next 2", "range id"},
		{"r4 ks0 [-∞, +∞) gen 1: 1@n1 next 2", "keyspace id"},
		{"r4 default [-∞, +∞) gen 0: 1@n1 next 2", "generation"},
		{"r4 default [b, a) gen 1: 1@n1 next 2", "span"},
		{"r4 default [a, a) gen 1: 1@n1 next 2", "span"},
		{"r4 default [-∞, +∞) gen 1: 1@n1 2@n1 next 3", "has another"},
		{"r4 default [-∞, +∞) gen 1: 1@n0 next 3", "none"},
		{"r4 default [-∞, +∞) gen 1: 2@n1 1@n2 next 3", "comes after"},
		{"r4 default [-∞, +∞) gen 1: 0@n1 next 3", "comes after"},
		{"r4 default [-∞, +∞) gen 1: 1@n1 2@n2 next 2", "not below"},
		{"r4 default [-∞, +∞) gen 1: 1@n1(learner) next 2", "votes"},
		{"r4 default [-∞, +∞) gen 1: 1@n1(outgoing) next 2", "votes"},
		{"r4 default [-∞, +∞) gen 1: 1@n1 2@n2(incoming) next 3", "swaps one"},
		{"r4 default [-∞, +∞) gen 1: 1@n1(unspecified) 2@n2 next 3", "unknown role"},
		{"r4 default [-∞, +∞) gen 1: 1@n1 2@n2 3@n3 4@n4 5@n5 6@n6 7@n7 8@n8 9@n9 10@n10 next 11", "more than"},
	} {
		err := desc.Validate(parse(t, c.d))
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s: got %v, want %q", c.d, err, c.wrong)
		}
	}
	if desc.Validate(nil) == nil {
		t.Error("nil is valid")
	}
}

// TestValidateSaysAll: every problem at once, so that evidence of corruption is whole.
func TestValidateSaysAll(t *testing.T) {
	err := desc.Validate(&metapb.RangeDescriptor{})
	for _, w := range []string{"range id", "keyspace id", "generation", "votes"} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v does not speak of the %s", err, w)
		}
	}
}

func TestLookups(t *testing.T) {
	d := parse(t, "r7 ks9 [b, d) gen 3: 1@n1(outgoing) 3@n5(incoming) 4@n2(learner) next 5")
	if r := desc.ReplicaOn(d, 5); r.GetReplicaId() != 3 {
		t.Errorf("on n5: %v", r)
	}
	if desc.ReplicaOn(d, 3) != nil || desc.Replica(d, 2) != nil {
		t.Error("found a replica that is not there")
	}
	if !desc.Joint(d) {
		t.Error("not joint")
	}
	for key, want := range map[string]bool{"a": false, "b": true, "czz": true, "d": false} {
		if desc.Contains(d, 9, []byte(key)) != want {
			t.Errorf("holds %q: %v", key, !want)
		}
	}
	if desc.Contains(d, 8, []byte("c")) {
		t.Error("holds a key of another keyspace")
	}
	for span, want := range map[string]bool{
		"[-∞, b)": false, "[-∞, ba)": true, "[c, ca)": true, "[d, +∞)": false, "[-∞, +∞)": true, "[cz, +∞)": true,
	} {
		o := parse(t, "r8 ks9 "+span+" gen 1: 1@n1 next 2")
		if desc.Overlap(d, o) != want || desc.Overlap(o, d) != want {
			t.Errorf("overlaps %s: %v", span, !want)
		}
	}
}

// TestFormatIsReadBack: what is printed in logs and stories says all there is.
func TestFormatIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := desctest.Reachable(t, 7)
		if got := parse(t, desc.Format(d)); !desc.Equal(got, d) {
			t.Fatalf("%s was read back as %s", desc.Format(d), desc.Format(got))
		}
	})
}

// FuzzCheck: whatever two descriptors come from the wire, Check does not panic, and accepts only what is valid and one
// generation on.
func FuzzCheck(f *testing.F) {
	from := desctest.First(base.RangeDefault, base.KeyspaceDefault)
	raw, _ := proto.Marshal(from)
	f.Add(raw, raw)
	for _, to := range desctest.Steps(from, 3) {
		next, _ := proto.Marshal(to)
		f.Add(raw, next)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		from, to := &metapb.RangeDescriptor{}, &metapb.RangeDescriptor{}
		if proto.Unmarshal(a, from) != nil || proto.Unmarshal(b, to) != nil || desc.Validate(from) != nil {
			return
		}
		if _, err := desc.Check(from, to); err == nil && (desc.Validate(to) != nil || to.Generation != from.Generation+1) {
			t.Fatalf("from %s to %s was accepted", desc.Format(from), desc.Format(to))
		}
	})
}

// FuzzDecode: bytes that are no valid descriptor are refused, and what is accepted is kept whole.
func FuzzDecode(f *testing.F) {
	raw, err := desc.Encode(desctest.First(base.RangeDefault, base.KeyspaceDefault))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := desc.Decode(raw)
		if err != nil {
			return
		}
		again, err := desc.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := desc.Decode(again); err != nil || !desc.Equal(back, d) || desc.Validate(d) != nil {
			t.Fatalf("%s came back as %s: %v", desc.Format(d), desc.Format(back), err)
		}
	})
}
