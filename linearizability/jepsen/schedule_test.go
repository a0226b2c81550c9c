package jepsen

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func someNemeses(n int) []Nemesis {
	var out []Nemesis
	for i := range n {
		out = append(out, Nemesis{Name: fmt.Sprintf("n%d", i), Class: fmt.Sprintf("F%02d", 1+i/2)})
	}
	return out
}

// The first stage is without faults, each nemesis has one of its own, and no round is longer than its stage.
func TestPlan(t *testing.T) {
	all := someNemeses(8)
	stages, skipped := plan(all, 10*time.Minute, false, 7)
	if len(skipped) != 0 {
		t.Errorf("skipped %v", skipped)
	}
	if s := stages[0]; s.Name != "none" || len(s.Rounds) != 0 || s.Rest < stageLeast {
		t.Errorf("the first stage is %+v", s)
	}
	alone, pairs := map[string]int{}, 0
	var sum time.Duration
	for i, s := range stages {
		if s.Number != i {
			t.Errorf("stage %d has the number %d", i, s.Number)
		}
		length := s.Rest
		for _, r := range s.Rounds {
			length += r.Quiet + r.Hold
			if r.Hold < holdLeast || r.Hold > holdMost {
				t.Errorf("%s holds for %s", s.Name, r.Hold)
			}
			if len(r.Nemeses) == 2 {
				pairs++
				if r.Nemeses[0].Class == r.Nemeses[1].Class {
					t.Errorf("%s: a pair of one class", s.Name)
				}
				continue
			}
			alone[s.Name]++
		}
		if length > stageMost {
			t.Errorf("stage %s lasts %s", s.Name, length)
		}
		sum += length
	}
	if len(alone) != len(all) || pairs == 0 || sum > 10*time.Minute {
		t.Errorf("%d nemeses alone, %d pairs, %s", len(alone), pairs, sum)
	}

	again, _ := plan(all, 10*time.Minute, false, 7)
	other, _ := plan(all, 10*time.Minute, false, 8)
	if planShape(again) != planShape(stages) || planShape(other) == planShape(stages) {
		t.Error("a plan is to be a function of its seed")
	}
}

func planShape(stages []stage) string {
	var b strings.Builder
	for _, s := range stages {
		fmt.Fprintf(&b, "%s %s:", s.Name, s.Rest)
		for _, r := range s.Rounds {
			fmt.Fprintf(&b, " %s %s", r.Quiet, r.Hold)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// What there is no time for is named; a mix has no stage of one nemesis alone, unless there is only one.
func TestPlanTooShort(t *testing.T) {
	all := someNemeses(30)
	stages, skipped := plan(all, time.Minute, false, 1)
	if len(stages)-1+len(skipped) != len(all) || len(skipped) == 0 {
		t.Errorf("%d stages and %d skipped of %d", len(stages), len(skipped), len(all))
	}
	if !strings.Contains(skipped[0].Why, "no time") {
		t.Errorf("skipped: %v", skipped[0])
	}
	stages, skipped = plan(all, time.Minute, true, 1)
	if len(stages) != 6 || len(skipped) != 0 || !strings.Contains(stages[1].Name, "+") {
		t.Errorf("a mix: %d stages, the second %s, skipped %v", len(stages), stages[1].Name, skipped)
	}
	if stages, _ := plan(all[:1], time.Minute, true, 1); len(stages) < 2 || stages[1].Name != "n0" {
		t.Errorf("a mix of one: %s", planShape(stages))
	}
	if stages, _ := plan(nil, 30*time.Second, false, 1); len(stages) != 1 || stages[0].Rest != 30*time.Second {
		t.Errorf("without nemeses: %s", planShape(stages))
	}
	if stages, _ := plan(nil, 3*time.Minute, false, 1); len(stages) != 3 || stages[2].Name != "none" {
		t.Errorf("without nemeses: %s", planShape(stages))
	}
}

func TestChoose(t *testing.T) {
	all := someNemeses(4) // classes F01, F01, F02, F02
	for _, c := range []struct {
		asked []string
		want  string
	}{
		{[]string{"all"}, "n0+n1+n2+n3"},
		{[]string{"F02", "n0"}, "n2+n3+n0"},
		{[]string{"n1", "F01"}, "n1+n0"},
		{[]string{"none"}, ""},
	} {
		got, err := choose(all, c.asked)
		if err != nil || names(got) != c.want {
			t.Errorf("%v: %s, %v, want %s", c.asked, names(got), err, c.want)
		}
	}
	if _, err := choose(all, []string{"n0", "nothing"}); err == nil || !strings.Contains(err.Error(), "nothing") ||
		!strings.Contains(err.Error(), "F02") {
		t.Errorf("an unknown nemesis: %v", err)
	}
}

func TestAble(t *testing.T) {
	all := someNemeses(3)
	all[1].Needs = []Capability{"root", "filter"}
	all[2].Needs = []Capability{"root"}
	can, skipped := able(all, map[Capability]string{"filter": "no iptables and no nft"})
	want := []Skip{{"n1", "filter: no iptables and no nft"}}
	if names(can) != "n0+n2" || !reflect.DeepEqual(skipped, want) {
		t.Errorf("can %s, skipped %v", names(can), skipped)
	}
}
