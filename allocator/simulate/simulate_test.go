package simulate

import (
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/allocator"
)

// The stories in testdata are scenarios and what comes out.
//
//	example NAME    runs a scenario that is built in
//	run             runs the scenario that follows
//	parse           says what is wrong with the scenario that follows
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			name, text := "scenario", d.Input
			if d.Cmd == "example" {
				var err error
				if name = d.CmdArgs[0].Key; err == nil {
					text, err = Example(name)
				}
				if err != nil {
					return err.Error() + "\n"
				}
			}
			s, err := Parse(name, text)
			if err == nil && d.Cmd == "parse" {
				s.number()
				err = s.Validate()
			}
			if err != nil {
				return err.Error() + "\n"
			}
			if d.Cmd == "parse" {
				return "ok\n"
			}
			r, err := Run(s, nil)
			if err != nil {
				return err.Error() + "\n"
			}
			if d.Cmd == "example" && !r.OK() {
				t.Errorf("%s is not as it is expected to be", name)
			}
			var out strings.Builder
			if err := r.Print(&out); err != nil {
				t.Fatal(err)
			}
			return out.String()
		})
	})
}

// Every example is a story, so that none is forgotten.
func TestEveryExampleIsAStory(t *testing.T) {
	told := map[string]bool{}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "example" {
				told[d.CmdArgs[0].Key] = true
			}
			return d.Expected
		})
	})
	for _, name := range Examples() {
		if !told[name] {
			t.Errorf("testdata has no story of the example %s", name)
		}
	}
	if len(Examples()) == 0 {
		t.Error("there are no examples")
	}
}

func parsed(t *testing.T, text string) *Scenario {
	t.Helper()
	s, err := Parse("test", text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const small = `
nodes 6 zone=a,b,c
policy moves-per-node=4
keyspace k ranges=60 size=lognormal(16MB,0.5) load=lognormal(10,1) noise=0.2
at 1m add 2 nodes zone=a,b
at 10m fail n2
at 20m restart rolling
at 30m hot spot wanders every 1m over keyspace k for 5m
deciders 3
`

// The same scenario and seed give the same result, another seed another one.
func TestRunsAreRepeatable(t *testing.T) {
	run := func(seed uint64) *Result {
		s := parsed(t, small)
		s.Seed = seed
		r, err := Run(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first, again, other := run(1), run(1), run(2)
	if !reflect.DeepEqual(first, again) {
		t.Error("two runs of one seed differ")
	}
	if reflect.DeepEqual(first.Samples, other.Samples) {
		t.Error("two seeds give the same run")
	}
	if len(first.Events) != 5 || first.Total.Moves == 0 {
		t.Errorf("nothing much has happened: %+v", first.Total)
	}
}

// What is counted as ranges and nodes change is what there is.
func TestCountsAgree(t *testing.T) {
	s := parsed(t, small)
	s.number()
	c, err := newCluster(s, allocator.Decide)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.settle(); err != nil {
		t.Fatal(err)
	}
	c.begin("start")
	for event := 0; c.now < s.Events[3].At+10*time.Minute; c.now += s.Step {
		for event < len(s.Events) && c.isTime(&s.Events[event]) {
			c.happen(&s.Events[event])
			event++
		}
		c.health()
		c.goOn()
		if err := errors.Join(c.progress(), c.ask()); err != nil {
			t.Fatal(err)
		}
		count, leaders, breaking, lacking := make([]int, len(c.nodes)), make([]int, len(c.nodes)), 0, 0
		for i := range c.groups {
			g := &c.groups[i]
			live := 0
			for _, n := range g.replicas {
				count[n]++
				live += boolInt(c.nodes[n].alive)
			}
			if g.leader >= 0 {
				leaders[g.leader]++
			}
			breaking += boolInt(live <= len(g.replicas)/2)
			lacking += boolInt(live < 3)
		}
		for i := range c.nodes {
			if n := &c.nodes[i]; n.count != count[i] || n.leaders != leaders[i] || n.in < 0 {
				t.Fatalf("at %s n%d has %d replicas and %d leaders, and %d and %d are counted", c.now, n.ID, count[i], leaders[i], n.count, n.leaders)
			}
		}
		if breaking != c.unavailable || lacking != c.under {
			t.Fatalf("at %s %d ranges have no quorum and %d too few replicas; counted are %d and %d", c.now, breaking, lacking, c.unavailable, c.under)
		}
	}
}

// A planner that decides what cannot be is found out.
func TestPlannerIsChecked(t *testing.T) {
	for name, decision := range map[string]allocator.Decision{
		"no such range": {Range: 99},
		"generation":    {Range: 100, Generation: 7},
		"not in order":  {Range: 100, Generation: 1, Voters: ids(3, 2, 1)},
		"no node n9":    {Range: 100, Generation: 1, Voters: ids(1, 2, 9)},
		"do not agree":  {Range: 100, Generation: 1, Voters: ids(1, 2, 4), Adds: ids(4)},
		"no voter":      {Range: 100, Generation: 1, Leader: 4},
	} {
		s := parsed(t, "nodes 4\nkeyspace k ranges=1 on=n1,n2,n3")
		_, err := Run(s, func(*allocator.Snapshot, uint64, int) ([]allocator.Decision, []allocator.Withheld) {
			return []allocator.Decision{decision}, nil
		})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A planner that does nothing fails what is expected of it, and one that moves to and fro is counted as such.
func TestExpectationsCanFail(t *testing.T) {
	text := "nodes 4\nkeyspace k ranges=1 on=n1,n2,n3\nfor 2m\nexpect imbalance count <= 1.2\nexpect pingpong = 0\nexpect twice = 0\n" +
		"expect moves <= 1.05 x bound\nexpect moves = 0\nexpect rest <= 1m"
	r, err := Run(parsed(t, text), func(*allocator.Snapshot, uint64, int) ([]allocator.Decision, []allocator.Withheld) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	if failed := failures(r); failed != "imbalance count <= 1.2" {
		t.Errorf("of a planner that does nothing: %q", failed)
	}
	there, generation := true, uint64(1)
	r, err = Run(parsed(t, text), func(s *allocator.Snapshot, _ uint64, _ int) ([]allocator.Decision, []allocator.Withheld) {
		rg, _ := s.Range(100)
		if uint64(rg.Generation) < generation {
			return nil, nil // on its way
		}
		d := allocator.Decision{Range: 100, Generation: rg.Generation, Voters: ids(2, 3, 4), Adds: ids(4), Removes: ids(1)}
		if !there {
			d.Voters, d.Adds, d.Removes = ids(1, 2, 3), ids(1), ids(4)
		}
		there, generation = !there, uint64(rg.Generation)+1
		return []allocator.Decision{d}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if failed := failures(r); failed != "imbalance count <= 1.2, pingpong = 0, twice = 0, moves <= 1.05 x bound, moves = 0, rest <= 1m" {
		t.Errorf("of a planner that moves to and fro: %q", failed)
	}
}

func failures(r *Result) string {
	var failed []string
	for _, x := range r.Expected {
		if !x.OK {
			failed = append(failed, x.Text)
		}
	}
	return strings.Join(failed, ", ")
}

// The picture is XML that can be read.
func TestSVGIsWellFormed(t *testing.T) {
	s := parsed(t, small)
	s.Name = "<small> & \"quoted\""
	r, err := Run(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := r.SVG()
	if err != nil {
		t.Fatal(err)
	}
	shapes := 0
	for d := xml.NewDecoder(strings.NewReader(string(picture))); ; shapes++ {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if shapes < 100 || strings.Contains(string(picture), "NaN") || strings.Contains(string(picture), "ZgotmplZ") {
		t.Errorf("%d shapes in %.300s", shapes, picture)
	}
}
