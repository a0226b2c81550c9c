package simulate

import (
	"strings"
	"testing"

	"github.com/cairndb/cairn/internal/base"
)

func ids(of ...base.NodeID) []base.NodeID { return of }

// Whatever is written, the parser answers, and what it accepts is within its bounds and can be set up.
func FuzzParse(f *testing.F) {
	for _, name := range Examples() {
		text, err := Example(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add(small)
	f.Add("nodes 3 zone=z1..z3 weight=\"1\"\nkeyspace k ranges=2 size=uniform(1MB,2MB) load=zipf(10,1.1) on=n1")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("fuzz", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") {
				t.Errorf("%v does not say where", err)
			}
			return
		}
		s.number()
		if s.Validate() != nil {
			return
		}
		ranges := 0
		for _, k := range s.Keyspaces {
			ranges += k.Ranges
		}
		if len(s.Nodes) > base.SimNodes || ranges > base.SimRanges {
			t.Errorf("%d nodes and %d ranges are too many", len(s.Nodes), ranges)
		}
		if len(s.Nodes) > 100 || ranges > 1000 || s.Deciders > 10 {
			return // it would take long
		}
		if _, err := newCluster(s, nil); err != nil {
			t.Error(err)
		}
	})
}
