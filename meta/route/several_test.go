package route_test

import (
	"testing"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/route"
)

// A request is told that it lies in several ranges only if the range that refused it was asked as it is. One that was merged since
// holds the key that it refused, and is told of by whoever knows that it lies beside what it was (seen under load: a put failed).
func TestSeveralRanges(t *testing.T) {
	parse := func(s string) *metapb.RangeDescriptor {
		d, err := desctest.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	whole := parse("r9 ks9 [-∞, +∞) gen 4: 1@n1 next 2")
	left := parse("r9 ks9 [-∞, k) gen 5: 1@n1 next 2")
	right := parse("r10 ks9 [k, +∞) gen 5: 1@n1 next 2")
	merged := parse("r9 ks9 [-∞, +∞) gen 7: 1@n1 next 2 absorbing r10")
	for _, c := range []struct {
		name    string
		asked   *metapb.RangeDescriptor
		key     string
		told    []*metapb.RangeDescriptor
		several bool
	}{
		{"another key lies elsewhere", left, "a", []*metapb.RangeDescriptor{left, right}, true},
		{"it was cut: ask again, it may be one key", whole, "a", []*metapb.RangeDescriptor{left, right}, false},
		{"the key lies elsewhere", whole, "z", []*metapb.RangeDescriptor{left, right}, false},
		{"it was cut, and who tells it knows it whole as well", whole, "z", []*metapb.RangeDescriptor{left, whole}, false},
		{"it was cut and merged meanwhile", whole, "z", []*metapb.RangeDescriptor{left, merged}, false},
		{"it was merged meanwhile", left, "a", []*metapb.RangeDescriptor{merged}, false},
		{"nothing is told", left, "a", nil, false},
	} {
		got := route.Several(&base.RangeMoved{Range: 9, Descriptors: c.told}, c.asked, 9, []byte(c.key))
		if (got != nil) != c.several {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
