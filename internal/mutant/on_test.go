//go:build mutants

package mutant

import "testing"

// TestSelect: one mistake at a time, and none that does not exist.
func TestSelect(t *testing.T) {
	defer func() { _ = Select("") }() // there is nothing that could fail
	for _, m := range All() {
		if err := Select(m.Name); err != nil {
			t.Fatal(err)
		}
		for _, other := range All() {
			if Is(other.ID) != (other.ID == m.ID) {
				t.Errorf("with %s selected, Is(%s) = %v", m.Name, other.Name, Is(other.ID))
			}
		}
	}
	if Select("no such mistake") == nil {
		t.Error("a mistake that does not exist was selected")
	}
	if err := Select(""); err != nil || Is(CompactionRevives) {
		t.Error("the last mistake is still made")
	}
}
