package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// opState is `cairn op show -o json`.
type opState struct {
	ID      uint64   `json:"id"`
	State   string   `json:"state"`
	Nodes   []uint64 `json:"nodes"`
	Total   uint64   `json:"total"`
	Left    uint64   `json:"left"`
	Waiting string   `json:"waiting"`
	Outcome string   `json:"outcome"`
}

// cairnAt runs a verb against a node, and returns what it printed, on both of its outputs, and its exit code.
func cairnAt(p *proc, args ...string) (string, int) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "--host", p.addr)...)
	out, _ := cmd.CombinedOutput() // its exit code says what went wrong
	return string(out), cmd.ProcessState.ExitCode()
}

// want runs a verb that is to succeed.
func (c *cluster) want(p *proc, args ...string) string {
	c.t.Helper()
	out, code := cairnAt(p, args...)
	if code != 0 {
		c.t.Fatalf("cairn %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// refused runs a verb that is to be refused with these words.
func (c *cluster) declined(p *proc, says string, args ...string) {
	c.t.Helper()
	if out, code := cairnAt(p, args...); code != 1 || !strings.Contains(out, says) {
		c.t.Errorf("cairn %s: exit %d, want 1 and %q\n%s", strings.Join(args, " "), code, says, out)
	}
}

func (c *cluster) op(p *proc, id uint64) (*opState, error) {
	out, err := run(10*time.Second, "op", "show", fmt.Sprint(id), "-o", "json", "--host", p.addr)
	if err != nil {
		return nil, err
	}
	op := &opState{}
	return op, json.Unmarshal([]byte(out), op)
}

// begin runs a verb that begins an operation, and returns its id.
func (c *cluster) begin(p *proc, args ...string) uint64 {
	c.t.Helper()
	op := &opState{}
	if err := json.Unmarshal([]byte(c.want(p, append(args, "-o", "json")...)), op); err != nil || op.ID == 0 {
		c.t.Fatalf("%v: %v, %v", args, op, err)
	}
	return op.ID
}

// join starts one more node, and waits until it is active.
func (c *cluster) join(flags ...string) *proc {
	c.t.Helper()
	p := newProc(c.t, fmt.Sprintf("node%d", len(c.procs)+1), freeAddrs(c.t, 1)[0], append([]string{"--join", strings.Join(c.endpoints(), ",")}, flags...)...)
	p.start()
	c.procs = append(c.procs, p)
	c.eventually(30*time.Second, func() error {
		s, err := c.status(p)
		if err == nil && (len(s.Nodes) != len(c.procs) || s.Nodes[len(s.Nodes)-1].State != "active") {
			err = fmt.Errorf("%v", s.Nodes)
		}
		return err
	})
	return p
}

// led is how many ranges each node leads, and held how many replicas it holds, by what the cluster says.
func (c *cluster) led(p *proc) (led, held map[uint64]int) {
	c.t.Helper()
	led, held = map[uint64]int{}, map[uint64]int{}
	s, err := c.status(p)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, r := range s.Ranges {
		led[r.Leader.Node]++
		for _, rep := range r.Replicas {
			held[rep.Node]++
		}
	}
	return led, held
}

// load writes and reads one key after the other, each with a second to be answered, until it is stopped; what failed is an error.
func (c *cluster) load() (stop func() error) {
	cl := c.client()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	count := 0
	for w := range 2 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				one, end := context.WithTimeout(context.Background(), time.Second)
				key := fmt.Sprintf("load/%d/%d", w, i%100)
				_, err := cl.Put(one, key, fmt.Sprint(i))
				if err == nil {
					_, err = cl.Get(one, key)
				}
				end()
				mu.Lock()
				if count++; err != nil {
					failed = append(failed, fmt.Errorf("%s, at %s: %w", key, time.Now().Format("15:04:05.000"), err))
				}
				mu.Unlock()
			}
		})
	}
	return func() error {
		cancel()
		wg.Wait()
		c.t.Logf("%d requests", count)
		if len(failed) > 0 {
			return fmt.Errorf("%d of %d requests failed; the first: %w", len(failed), count, failed[0])
		}
		if count < 10 {
			return fmt.Errorf("only %d requests were made", count)
		}
		return nil
	}
}

// A node is drained, and then another is emptied and leaves, while a client that waits a second at most notices nothing.
func TestDrainAndDecommissionUnderLoad(t *testing.T) {
	c := startCluster(t, 4)
	at := c.procs[0]
	stop := c.load()

	led, _ := c.led(at)
	var leader uint64
	for n := range led {
		if leader == 0 || led[n] > led[leader] {
			leader = n
		}
	}
	name := fmt.Sprintf("n%d", leader)
	out := c.want(at, "node", "drain", name, "--wait", "--timeout", "60s")
	if !strings.Contains(out, "done") {
		t.Errorf("drain: %s", out)
	}
	if led, _ := c.led(at); led[leader] != 0 {
		t.Errorf("%s is drained, and leads %d ranges", name, led[leader])
	}
	c.want(at, "node", "uncordon", name)

	s, err := c.status(at)
	if err != nil {
		t.Fatal(err)
	}
	gone := s.Nodes[slices.IndexFunc(s.Nodes, func(n statusNode) bool { return n.Address != at.addr && n.ID != leader })].ID
	name = fmt.Sprintf("n%d", gone)
	out = c.want(at, "node", "decommission", name, "--wait", "--timeout", "90s")
	if !strings.Contains(out, "left for good") {
		t.Errorf("decommission: %s", out)
	}
	if _, held := c.led(at); held[gone] != 0 {
		t.Errorf("%s has left, and holds %d replicas", name, held[gone])
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	c.declined(at, "left, for good", "node", "drain", name)
	c.declined(at, "left", "node", "recommission", name)
	if out := c.want(at, "op", "ls", "--all"); !strings.Contains(out, "drain") || !strings.Contains(out, "decommission "+name) {
		t.Errorf("op ls: %s", out)
	}
}

// What cannot end well is refused, with the reason and what would be possible; and nothing of it is begun.
func TestOperationsRefused(t *testing.T) {
	c := startCluster(t, 4)
	at := c.procs[1]
	// What is refused depends on where replicas are: for a while nothing has moved.
	last, since := "", time.Now()
	c.eventually(60*time.Second, func() error {
		s, err := c.status(at)
		if err != nil {
			return err
		}
		var generations []string
		for _, r := range s.Ranges {
			generations = append(generations, fmt.Sprintf("r%d %d", r.ID, r.Generation))
		}
		if now := strings.Join(generations, ", "); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 4*time.Second {
			return fmt.Errorf("replicas moved a moment ago: %s", last)
		}
		return nil
	})
	s, err := c.status(at)
	if err != nil {
		t.Fatal(err)
	}
	zone1 := ""
	for _, n := range s.Nodes {
		if n.Locality == "zone=z1" {
			zone1 = fmt.Sprintf("n%d", n.ID)
		}
	}
	var holders []string // of default
	for _, r := range s.Ranges {
		for _, rep := range r.Replicas {
			if r.Keyspace == "default" {
				holders = append(holders, fmt.Sprintf("n%d", rep.Node))
			}
		}
	}
	c.declined(at, "there is no node n9: there are n1, n2, n3, n4", "node", "drain", "n9")
	c.declined(at, "there is no range r77", "range", "move", "--range", "r77", "--to", "n1")
	c.declined(at, "there is no range r77", "range", "transfer", "--range", "r77", "--to", "n1")
	c.declined(at, "there is no range r77", "range", "why", "r77")
	c.declined(at, "there is no operation 7", "op", "cancel", "7")
	c.declined(at, "could then have no leader", append([]string{"node", "drain"}, holders...)...)
	c.declined(at, "n2 cannot be removed: it is active", "node", "rm", "n2", "--yes-it-is-dead", "n2")
	c.declined(at, "zone=mars", "policy", "set", "constraints=+zone=mars")
	c.declined(at, "there is no keyspace x", "policy", "show", "--keyspace", "x")
	c.declined(at, "add nodes", append([]string{"node", "decommission"}, holders[:2]...)...)
	c.want(at, "policy", "set", "constraints=+zone=z1:1")
	c.declined(at, "+zone=z1:1", "node", "decommission", zone1) // the only one of its zone
	c.want(at, "policy", "set", "constraints=default")
	if out, code := cairnAt(at, "node", "safe-to-stop", holders[0], holders[1]); code != 3 || !strings.Contains(out, "cannot be stopped") {
		t.Errorf("two of three can be stopped: exit %d\n%s", code, out)
	}

	// Held by one, a node counts as stopped for the next.
	if out := c.want(at, "node", "safe-to-stop", holders[0], "--hold", "1h"); !strings.Contains(out, "held for 1h0m0s by operation") {
		t.Errorf("%s", out)
	}
	if out, code := cairnAt(at, "node", "safe-to-stop", holders[1]); code != 3 || !strings.Contains(out, holders[0]+" held, too") {
		t.Errorf("with %s held, %s can be stopped: exit %d\n%s%s%s", holders[0], holders[1], code, out, c.want(at, "op", "ls"), c.want(at, "status", "--ranges"))
	}
	if out := c.want(at, "op", "ls"); !strings.Contains(out, "hold "+holders[0]) {
		t.Errorf("op ls: %s", out)
	}
	// Every node can be asked for all of it: those that have no replica of what it is about pass it on.
	hold := strings.Fields(strings.Split(c.want(at, "op", "ls"), "\n")[1])[0]
	for i, p := range c.procs {
		if out := c.want(p, "range", "why", "r4"); !strings.Contains(out, "decided by") || !strings.Contains(out, "MAY HOLD") {
			t.Errorf("range why: %s", out)
		}
		to := holders[1+i%2] // not the one that is held: it may not be given leaders
		if out := c.want(p, "range", "transfer", "--range", "r4", "--to", to); !strings.Contains(out, to+" leads r4") {
			t.Errorf("transfer: %s", out)
		}
		if out, code := cairnAt(p, "op", "watch", hold, "--timeout", "300ms"); code != 5 || !strings.Contains(out, "operation "+hold+": running") {
			t.Errorf("watch: exit %d\n%s", code, out)
		}
	}
	c.want(at, "op", "cancel", hold)
	if out, code := cairnAt(at, "op", "watch", hold); code != 4 || !strings.Contains(out, "cancelled") {
		t.Errorf("watch: exit %d\n%s", code, out)
	}
}

// sysLeader is the process that leads sys.
func (c *cluster) sysLeader(at *proc) (leader *proc) {
	c.t.Helper()
	c.eventually(30*time.Second, func() error {
		s, err := c.status(at)
		if err != nil {
			return err
		}
		for _, r := range s.Ranges {
			for _, p := range c.alive() {
				if r.Keyspace == "sys" && r.Leader.Address == p.addr {
					leader = p
				}
			}
		}
		if leader == nil {
			return fmt.Errorf("nobody leads sys")
		}
		return nil
	})
	return leader
}

// nodeOf is a process's node id.
func (c *cluster) nodeOf(p *proc) (id uint64) {
	c.t.Helper()
	s, err := c.status(p)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range s.Nodes {
		if n.Address == p.addr {
			id = n.ID
		}
	}
	return id
}

// An operation is refused, cancelled, paused and resumed; and goes on when the node that carried it on is killed.
func TestOperationOutlivesItsDriver(t *testing.T) {
	c := startCluster(t, 4)
	c.join("--locality", "zone=z5")
	driver := c.sysLeader(c.procs[0])
	others := slices.DeleteFunc(slices.Clone(c.procs), func(p *proc) bool { return p == driver })
	at, gone := others[0], others[1]
	leaves := c.nodeOf(gone) // its process ends once it has left
	name := fmt.Sprintf("n%d", leaves)

	id := c.begin(at, "node", "decommission", name)
	if again := c.begin(others[2], "node", "decommission", name); again != id {
		t.Errorf("the same was begun twice: operations %d and %d", id, again)
	}
	c.declined(at, fmt.Sprintf("operation %d (decommission %s) goes on", id, name), "node", "drain", name)
	c.want(at, "op", "cancel", fmt.Sprint(id))
	if op, err := c.op(at, id); err != nil || op.State != "cancelled" {
		t.Errorf("%v, %v", op, err)
	}
	if out := c.want(at, "node", "cordon", name); !strings.Contains(out, "active  yes") {
		t.Errorf("after the cancel it is not active: %s", out)
	}
	c.want(at, "node", "uncordon", name)

	id = c.begin(at, "node", "decommission", name)
	c.want(at, "op", "pause", fmt.Sprint(id))
	driver.kill()
	c.eventually(30*time.Second, func() error { // sys elects another leader
		_, err := run(10*time.Second, "op", "resume", fmt.Sprint(id), "--host", at.addr)
		return err
	})
	if out, code := cairnAt(at, "op", "watch", fmt.Sprint(id), "--timeout", "100s"); code != 0 || !strings.Contains(out, "left for good") {
		op, err := c.op(at, id)
		t.Fatalf("exit %d: %s\n%v, %v", code, out, op, err)
	}
	if _, held := c.led(at); held[leaves] != 0 {
		t.Errorf("it has left, and holds %d replicas", held[leaves])
	}
}

// A move that is cancelled stops: whoever leads the range is told, and what was begun is taken back long before the copy
// would be there. The voters stay where they were. How soon is for TestWithdraw (node/reconcile), and the simulator.
func TestCancelledMoveStops(t *testing.T) {
	c := startCluster(t, 4)
	at := c.procs[0]
	c.want(at, "policy", "set", "snapshot_rate=1MiB", "balance=off", "pause_latency=10000%") // the copy takes half a minute
	cl := c.client()
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range 480 {
		value := make([]byte, 64<<10)
		for j := range value {
			value[j] = byte(noise.Uint32())
		}
		if _, err := cl.Put(t.Context(), fmt.Sprintf("large/%d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	of := func(id base.RangeID) (leader uint64, voters, learners []uint64) {
		t.Helper()
		s, err := c.status(at)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range s.Ranges {
			if r.ID != uint64(id) {
				continue
			}
			leader = r.Leader.Node
			for _, rep := range r.Replicas {
				if rep.Role == "voter" {
					voters = append(voters, rep.Node)
				} else {
					learners = append(learners, rep.Node)
				}
			}
		}
		slices.Sort(voters)
		return leader, voters, learners
	}
	// Who decides hears of the operation and of its end, also where it has no replica of sys.
	_, told, _ := of(base.RangeSys)
	_, index, _ := of(base.RangeMeta)
	if i := slices.IndexFunc(index, func(n uint64) bool { return !slices.Contains(told, n) }); i >= 0 {
		c.want(at, "range", "transfer", "--range", base.RangeMeta.String(), "--to", fmt.Sprintf("n%d", index[i]))
		t.Logf("node %d decides, and has no replica of sys", index[i])
	}
	replicas := func() (leader uint64, voters, learners []uint64) { return of(base.RangeDefault) }
	leader, before, learners := replicas()
	if leader == 0 || len(before) != 3 || len(learners) != 0 {
		t.Fatalf("the range is led by %d, with voters %v and learners %v", leader, before, learners)
	}
	out := slices.IndexFunc(before, func(n uint64) bool { return n != leader })
	var to []string
	for n := range uint64(4) {
		if n+1 != before[out] {
			to = append(to, fmt.Sprintf("n%d", n+1))
		}
	}
	id := c.begin(at, "range", "move", "--range", base.RangeDefault.String(), "--to", strings.Join(to, ","))
	c.eventually(30*time.Second, func() error {
		if _, voters, learners := replicas(); len(learners) != 1 {
			return fmt.Errorf("voters %v, learners %v", voters, learners)
		}
		return nil
	})
	c.want(at, "op", "cancel", fmt.Sprint(id))
	cancelled := time.Now()
	c.eventually(20*time.Second, func() error { // long before the copy would be there
		if _, _, learners := replicas(); len(learners) > 0 {
			return fmt.Errorf("learners %v", learners)
		}
		return nil
	})
	t.Logf("what was begun was taken back within %s", time.Since(cancelled).Round(time.Millisecond))
	if _, after, _ := replicas(); !slices.Equal(after, before) {
		t.Errorf("the voters were %v and are %v", before, after)
	}
}
