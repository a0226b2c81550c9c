package liveness

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/api/metapb"
)

// The stories in testdata tell of a cluster, a line each. `run` prints what becomes of the records meanwhile, `health` what is told of
// every node, `try` what an event makes of a record that is in each state.
//
//	nodes N | run 10s | skip 10s (nothing happens at all) | kill N… | live N… | cut A B | heal A B | lead N | announce N
//	alone N… | load N sync=210ms put=… late=… | policy failed_after=60s | lose on|off | do EVENT N | health | try EVENT
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				out.WriteString(s.do(strings.Fields(line)))
			}
			return out.String()
		})
	})
}

type story struct {
	t *testing.T
	w *world
}

func (s *story) do(f []string) string {
	if f[0] == "nodes" {
		s.w = newWorld(s.t, s.ids(f[1:])[0])
		return ""
	}
	if f[0] == "try" {
		return s.try(f[1])
	}
	w := s.w
	switch f[0] {
	case "run":
		w.events = nil
		w.run(s.duration(f[1]))
		return strings.Join(append(w.events, ""), "\n")
	case "skip":
		w.now = w.now.Add(s.duration(f[1]))
	case "kill", "live", "alone":
		for _, id := range s.ids(f[1:]) {
			switch f[0] {
			case "alone":
				w.alone[id] = true
			default:
				w.down[id] = f[0] == "kill"
			}
		}
	case "cut", "heal":
		ids := s.ids(f[1:])
		w.sever(ids[0], ids[1], f[0] == "cut")
	case "lead":
		w.lead(s.ids(f[1:])[0])
	case "announce":
		id := s.ids(f[1:])[0]
		if err := w.announce(id); err != nil {
			return err.Error() + "\n"
		}
		return recordLine(w.records[id])
	case "load":
		w.load[s.ids(f[1:2])[0]] = s.load(f[2:])
	case "policy":
		_, v, _ := strings.Cut(f[1], "=")
		w.policy = PolicyOf(&metapb.PolicyRecord{Cluster: &metapb.ClusterPolicy{FailedAfterMillis: uint64(s.duration(v).Milliseconds())}})
	case "lose":
		w.lost = f[1] == "on"
	case "do":
		return s.apply(f[1], s.ids(f[2:])[0])
	case "health":
		return s.health()
	default:
		s.t.Fatalf("a story does not say %q", f)
	}
	return ""
}

func recordLine(r *metapb.NodeRecord) string {
	flags := ""
	if r.Cordoned {
		flags += " cordoned"
	}
	if r.Draining {
		flags += " draining"
	}
	return fmt.Sprintf("n%d is %s%s, generation %d, epoch %d\n", r.NodeId, StateName(r.State), flags, r.Generation, r.Epoch)
}

func (s *story) event(name string) Event {
	for e := range events {
		if strings.ReplaceAll(e.String(), " ", "-") == name {
			return e
		}
	}
	s.t.Fatalf("no event is named %q", name)
	return 0
}

func (s *story) apply(event string, id uint64) string {
	r, err := Apply(s.w.records[id], s.event(event), "somebody asked for it", int64(s.w.now)/1000)
	if err != nil {
		return err.Error() + "\n"
	}
	s.w.records[id] = r
	s.w.tell()
	return recordLine(r)
}

func (s *story) try(event string) string {
	var out strings.Builder
	for state := metapb.NodeState_NODE_STATE_JOINING; state <= metapb.NodeState_NODE_STATE_REPLACED; state++ {
		before := &metapb.NodeRecord{NodeId: 3, State: state, Generation: 7, Epoch: 2, Cordoned: true, Draining: true}
		after, err := Apply(before, s.event(event), "why", 1)
		switch {
		case err != nil:
			fmt.Fprintf(&out, "%s: %s\n", StateName(state), err)
		case after == before:
			fmt.Fprintf(&out, "%s: it is so already\n", StateName(state))
		default:
			fmt.Fprintf(&out, "%s: %s", StateName(state), recordLine(after))
		}
	}
	return out.String()
}

func (s *story) health() string {
	var out strings.Builder
	for _, h := range s.w.table.Health(s.w.now) {
		fmt.Fprintf(&out, "n%d %s, heard %s, suspected %s: %s\n", h.NodeId, StateName(s.w.records[h.NodeId].State),
			time.Duration(h.HeardMicros)*time.Microsecond, time.Duration(h.SuspectedMicros)*time.Microsecond, h.Why)
		if h.Slow != "" {
			fmt.Fprintf(&out, "  slow: %s\n", h.Slow)
		}
	}
	return out.String()
}

func (s *story) load(args []string) *metapb.NodeLoad {
	l := &metapb.NodeLoad{}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		d := s.duration(v).Microseconds()
		switch k {
		case "sync":
			l.SyncMicros = d
		case "put":
			l.PutMicros = d
		case "late":
			l.LateMicros = d
		}
	}
	return l
}

func (s *story) duration(v string) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *story) ids(words []string) (out []uint64) {
	for _, w := range words {
		n, err := strconv.ParseUint(strings.TrimPrefix(w, "n"), 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, n)
	}
	if len(out) == 0 {
		s.t.Fatal("a node is missing")
	}
	return out
}
