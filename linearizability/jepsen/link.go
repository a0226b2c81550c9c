package jepsen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairndb/cairn/internal/base"
)

// Tap is a network interface whose other end is this process: what slow and lossy links need. (The kernel's own emulation,
// tc netem, is not on every machine.)
const Tap Capability = "tap"

// LinkRule is how one direction of a link is. The zero value is a link that is well.
type LinkRule struct {
	Delay, Jitter  time.Duration // each packet takes Delay, and up to Jitter more
	Loss, Double   int64         // percent of the packets that are lost, that come twice
	BytesPerSecond int64         // 0: no limit
}

// shaper carries the packets of links that are not well. It is a station on the bridge: a sender is told its address for
// the receiver's, as for a cut, and what arrives here goes on to the receiver when the rule says so, or not at all.
type shaper struct {
	file     *os.File
	stations map[int]net.HardwareAddr

	mu     sync.Mutex
	rand   *base.Rand
	rules  map[[2]int]LinkRule
	free   map[[2]int]time.Time // when a narrow link has sent what it has
	queued int
}

const (
	shaperAddress = "02:00:00:00:00:f0"
	// maxQueued bounds the packets that wait: beyond it they are lost, as in a router.
	maxQueued = 20_000
	// maxBacklog bounds how long a packet waits for a narrow link.
	maxBacklog = 2 * time.Second
	etherIPv4  = 0x0800
)

// openTap makes a tap interface. Closing the file removes it.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("tap %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// tryTap finds out whether a tap can be made.
func tryTap() error {
	f, err := openTap("cjtry" + fmt.Sprint(os.Getpid()%10000))
	if err != nil {
		return err
	}
	return f.Close()
}

// shape makes a direction pass through the shaper.
func (n *network) shape(from, to int, rule LinkRule) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shaped == nil {
		s, err := n.newShaper()
		if err != nil {
			return err
		}
		n.shaped = s
	}
	n.shaped.set([2]int{from, to}, &rule)
	n.shapes[[2]int{from, to}] = true
	if n.cuts[[2]int{from, to}] {
		return nil // until it is mended
	}
	return ips(n.way(from, to))
}

// unshape lets a direction be as it was. A direction that was cut meanwhile stays so.
func (n *network) unshape(from, to int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.shapes[[2]int{from, to}] {
		return nil
	}
	delete(n.shapes, [2]int{from, to})
	if n.cuts[[2]int{from, to}] {
		return nil
	}
	// What is still under way comes late, to a connection that has it already.
	return ips(n.way(from, to))
}

func (n *network) newShaper() (*shaper, error) {
	s := &shaper{stations: map[int]net.HardwareAddr{}, rules: map[[2]int]LinkRule{}, free: map[[2]int]time.Time{}, rand: base.NewRand(uint64(os.Getpid()))}
	for i := range n.size {
		out, err := ipOutput("-n " + n.namespace(i) + " -o link show eth0")
		if err != nil {
			return nil, err
		}
		_, rest, _ := strings.Cut(out, "link/ether ")
		mac, err := net.ParseMAC(strings.Fields(rest + " -")[0])
		if err != nil {
			return nil, fmt.Errorf("the address of %s: %w", n.namespace(i), err)
		}
		s.stations[i] = mac
	}
	var err error
	if s.file, err = openTap(n.name + "t"); err != nil {
		return nil, err
	}
	if err := ips("link set "+n.name+"t master "+n.bridge(), "link set "+n.name+"t up"); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	go s.run()
	return s, nil
}

func (s *shaper) set(link [2]int, rule *LinkRule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules[link] = *rule
}

func (s *shaper) close() error { return s.file.Close() }

// run takes packets until the tap is closed.
func (s *shaper) run() {
	buf := make([]byte, 1<<16)
	for {
		n, err := s.file.Read(buf)
		if err != nil {
			return
		}
		s.carry(buf[:n])
	}
}

// carry sees to one packet: it belongs to a link if it is for this station and from one node to another.
func (s *shaper) carry(p []byte) {
	if len(p) < 34 || net.HardwareAddr(p[:6]).String() != shaperAddress || binary.BigEndian.Uint16(p[12:]) != etherIPv4 {
		return
	}
	link := [2]int{int(p[29]) - 1, int(p[33]) - 1} // the last bytes of the IPv4 addresses
	to, ok := s.stations[link[1]]
	if !ok {
		return
	}
	s.mu.Lock()
	rule := s.rules[link]
	copies := 1
	switch {
	case s.queued >= maxQueued, s.rand.Int63n(100) < rule.Loss:
		copies = 0
	case s.rand.Int63n(100) < rule.Double:
		copies = 2
	}
	wait := rule.Delay + time.Duration(s.rand.Int63n(int64(rule.Jitter)+1))
	if rule.BytesPerSecond > 0 && copies > 0 {
		now := time.Now()
		at := s.free[link]
		if at.Before(now) {
			at = now
		}
		at = at.Add(time.Duration(len(p)) * time.Second / time.Duration(rule.BytesPerSecond))
		if at.Sub(now) > maxBacklog {
			copies = 0
		} else {
			s.free[link] = at
			wait += at.Sub(now)
		}
	}
	s.queued += copies
	s.mu.Unlock()
	if copies == 0 {
		return
	}
	out := append([]byte{}, p...)
	copy(out, to)
	from, err := net.ParseMAC(shaperAddress)
	if err != nil {
		panic(err) // a constant
	}
	copy(out[6:], from)
	for range copies {
		time.AfterFunc(wait, func() {
			_, _ = s.file.Write(out) // a packet that cannot be sent is lost, as packets are
			s.mu.Lock()
			s.queued--
			s.mu.Unlock()
		})
	}
}

// linkNemeses make links slow, lossy, narrow, or come and go.
func linkNemeses() []Nemesis {
	needs := []Capability{Namespaces, Tap}
	row := func(name, about string, choose victims, draw func(r *base.Rand) LinkRule) Nemesis {
		return Nemesis{Name: name, Class: "F07", About: about, Needs: needs, Begin: shapeLinks(choose, draw)}
	}
	between := func(r *base.Rand, lo, hi int64) int64 { return lo + r.Int63n(hi-lo+1) }
	return []Nemesis{
		row("delay-leader", "the links of the leader take 10 to 500 ms, with as much jitter", leader, func(r *base.Rand) LinkRule {
			d := time.Duration(between(r, 10, 500)) * time.Millisecond
			return LinkRule{Delay: d / 2, Jitter: d}
		}),
		row("delay-all", "every link takes 10 to 100 ms", everybody, func(r *base.Rand) LinkRule {
			return LinkRule{Delay: time.Duration(between(r, 10, 100)) * time.Millisecond, Jitter: 5 * time.Millisecond}
		}),
		row("loss", "the links of a node lose 1 to 30 % of their packets", one, func(r *base.Rand) LinkRule { return LinkRule{Loss: between(r, 1, 30)} }),
		row("loss-all", "every link loses 1 to 5 % of its packets", everybody, func(r *base.Rand) LinkRule { return LinkRule{Loss: between(r, 1, 5)} }),
		row("double", "the links of a node double and reorder packets", one, func(r *base.Rand) LinkRule {
			return LinkRule{Double: between(r, 1, 30), Jitter: 5 * time.Millisecond}
		}),
		row("narrow", "the links of the leader carry 1 Mbit/s each", leader, func(*base.Rand) LinkRule { return LinkRule{BytesPerSecond: 125_000} }),
		{Name: "flap", Class: "F07", About: "the links of a node come and go, every 0.1 to 2 s", Needs: []Capability{Namespaces}, Begin: flap},
	}
}

// shapeLinks shapes both directions between some nodes and all others.
func shapeLinks(choose victims, draw func(*base.Rand) LinkRule) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
		chosen, err := choose(ctx, c, r)
		if err != nil {
			return "", nil, err
		}
		rule := draw(r)
		links := between(chosen, without(c.Len(), chosen))
		if len(chosen) == c.Len() {
			links = between(chosen, chosen)
		}
		heal := func(context.Context) (err error) {
			for _, l := range links {
				if l[0] != l[1] {
					err = errors.Join(err, c.Unshape(l[0], l[1]))
				}
			}
			return err
		}
		for _, l := range links {
			if l[0] != l[1] {
				err = errors.Join(err, c.Shape(l[0], l[1], rule))
			}
		}
		return fmt.Sprintf("links of %s: %+v", c.names(chosen), rule), heal, err
	}
}

// flap cuts a node off and lets it back in, again and again.
func flap(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
	chosen, err := one(ctx, c, r)
	if err != nil {
		return "", nil, err
	}
	links := between(chosen, without(c.Len(), chosen))
	every := time.Duration(100+r.Int63n(1900)) * time.Millisecond
	stop, ended := make(chan struct{}), make(chan error, 1)
	all := func(do func(from, to int) error) (err error) {
		for _, l := range links {
			err = errors.Join(err, do(l[0], l[1]))
		}
		return err
	}
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var err error
		for down := true; ; down = !down {
			if down {
				err = errors.Join(err, all(c.Cut))
			} else {
				err = errors.Join(err, all(c.Mend))
			}
			select {
			case <-tick.C:
			case <-stop:
				ended <- errors.Join(err, all(c.Mend))
				return
			}
		}
	}()
	heal := func(context.Context) error {
		close(stop)
		return <-ended
	}
	return fmt.Sprintf("%s comes and goes every %s", c.names(chosen), every), heal, nil
}
