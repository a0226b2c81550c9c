package mutant

import "testing"

// TestAll: each mistake is described once, at its place, under a name of its own.
func TestAll(t *testing.T) {
	all := All()
	if len(all) != int(count)-1 {
		t.Fatalf("%d of %d mistakes are described", len(all), count-1)
	}
	names := map[string]bool{}
	for i, m := range all {
		if m.ID != ID(i+1) || m.Name == "" || m.Breaks == "" || m.Kin == "" || names[m.Name] {
			t.Errorf("%+v at place %d", m, i+1)
		}
		names[m.Name] = true
		if got, ok := Named(m.Name); !ok || got != m {
			t.Errorf("%q finds %+v", m.Name, got)
		}
		if Is(m.ID) {
			t.Errorf("%s is made though nobody selected it", m.Name)
		}
	}
	if len(Names()) != len(all) {
		t.Error("not all have names")
	}
	if _, ok := Named("none"); ok || Is(None) {
		t.Error("no mistake is a mistake")
	}
}
