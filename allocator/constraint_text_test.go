package allocator

import (
	"slices"
	"strings"
	"testing"
)

func TestConstraintText(t *testing.T) {
	for text, want := range map[string][]Constraint{
		"":                          nil,
		"+region=eu":                {{Required, "region", "eu", 0}},
		"+region=eu:2,-zone=a,~ssd": {{Required, "region", "eu", 2}, {Forbidden, "zone", "a", 0}, {Preferred, "", "ssd", 0}},
		"~ssd:1":                    {{Preferred, "", "ssd", 1}},
	} {
		got, err := ParseConstraints(text)
		if err != nil || !slices.Equal(got, want) || FormatConstraints(got) != text {
			t.Errorf("%q is %v (%q), %v; want %v", text, got, FormatConstraints(got), err, want)
		}
	}
	for text, says := range map[string]string{
		"region=eu": "none of +", ",": "none of +", "+": "about nothing", "+=eu": "about nothing", "+region=": "about nothing", "+a=b=c": "about nothing",
		"+a b": "about nothing", "+ssd:0": "1 to 99", "+ssd:x": "1 to 99", "+ssd:02": "1 to 99", "+ssd:": "1 to 99", "-zone=a:2": "forbid all (-zone=a)", "+a,": "none of +",
	} {
		if got, err := ParseConstraints(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is %v, %v; want %q", text, got, err, says)
		}
	}
}

func FuzzConstraintText(f *testing.F) {
	for _, s := range []string{"+region=eu:2,-zone=a,~ssd", "+ssd", "~a:9", "-", "+a=:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cs, err := ParseConstraints(text)
		if err != nil {
			return
		}
		if back := FormatConstraints(cs); back != text {
			t.Errorf("%q was written as %q", text, back)
		}
	})
}
