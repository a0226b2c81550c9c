package jepsen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// network is a namespace for each node, each with one link to a bridge, on which the clients are too: they live in the
// namespace of this process. What it makes is named after the process, so that a later one finds and removes what a
// killed one left.
//
// A direction of a pair is cut at the sender, by the link layer: the receiver's address is given to a station that does
// not exist. Its frames are lost without a word, as on a cable that is cut; no packet filter is needed, routes stay, and
// connections that are open notice nothing but silence.
type network struct {
	name  string // of all that it makes; at most 10 bytes, for the names of links are short
	octet int    // of its addresses: 10.213.octet.0/24

	mu     sync.Mutex
	size   int
	cuts   map[[2]int]bool // from, to
	shapes map[[2]int]bool // from, to
	shaped *shaper         // nil until a link is shaped
}

// Clients as an end of a cut are all clients, and whoever else is on this machine.
const Clients = -1

const (
	netPrefix  = "cj"
	netHost    = 254 // the clients' address
	deadLink   = "02:00:00:00:00:fe"
	netCommand = 10 * time.Second
)

func newNetwork(suffix string) *network {
	pid := os.Getpid()
	return &network{name: netPrefix + strconv.Itoa(pid) + suffix, octet: pid % 250, cuts: make(map[[2]int]bool), shapes: make(map[[2]int]bool)}
}

func (n *network) bridge() string         { return n.name + "b" }
func (n *network) namespace(i int) string { return n.name + "n" + strconv.Itoa(i+1) }
func (n *network) link(i int) string      { return n.name + "v" + strconv.Itoa(i+1) }

// address is a node's, or the clients'.
func (n *network) address(i int) string {
	if i == Clients {
		i = netHost - 1
	}
	return fmt.Sprintf("10.213.%d.%d", n.octet, i+1)
}

// make makes the bridge and the namespaces. After an error remove is called all the same.
func (n *network) make(nodes int) error {
	n.size = nodes
	if err := ips(
		"link add "+n.bridge()+" type bridge",
		"addr add "+n.address(Clients)+"/24 dev "+n.bridge(),
		"link set "+n.bridge()+" up",
	); err != nil {
		return err
	}
	for i := range nodes {
		ns := n.namespace(i)
		if err := ips(
			"netns add "+ns,
			"link add "+n.link(i)+" type veth peer name eth0 netns "+ns,
			"link set "+n.link(i)+" master "+n.bridge()+" up",
			"-n "+ns+" addr add "+n.address(i)+"/24 dev eth0",
			"-n "+ns+" link set lo up",
			"-n "+ns+" link set eth0 up",
		); err != nil {
			return err
		}
	}
	return nil
}

// remove removes what make made, as much of it as there is. No process may be left in it.
func (n *network) remove() error {
	var errs []error
	if n.shaped != nil {
		errs = append(errs, n.shaped.close())
	}
	for i := range n.size {
		if _, err := os.Stat("/run/netns/" + n.namespace(i)); err == nil {
			errs = append(errs, ips("netns del "+n.namespace(i)))
		}
	}
	if _, err := os.Stat("/sys/class/net/" + n.bridge()); err == nil {
		errs = append(errs, ips("link del "+n.bridge()))
	}
	return errors.Join(errs...)
}

// cut loses, from now on, what one node sends to another.
func (n *network) cut(from, to int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cuts[[2]int{from, to}] {
		return nil
	}
	if err := ips(n.at(from, "neigh replace "+n.address(to)+" lladdr "+deadLink+" nud permanent")); err != nil {
		return err
	}
	n.cuts[[2]int{from, to}] = true
	return nil
}

// mend undoes a cut.
func (n *network) mend(from, to int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.cuts[[2]int{from, to}] {
		return nil
	}
	if err := ips(n.way(from, to)); err != nil {
		return err
	}
	delete(n.cuts, [2]int{from, to})
	return nil
}

// way is the command that lets a direction that is not cut be what it is to be: as made, or through the shaper.
func (n *network) way(from, to int) string {
	if n.shapes[[2]int{from, to}] {
		return n.at(from, "neigh replace "+n.address(to)+" lladdr "+shaperAddress+" nud permanent")
	}
	return n.at(from, "neigh del "+n.address(to))
}

// at is a command about neighbours in the namespace of one end.
func (n *network) at(end int, command string) string {
	if end == Clients {
		return command + " dev " + n.bridge()
	}
	return "-n " + n.namespace(end) + " " + command + " dev eth0"
}

// ips runs commands of iproute2 until one fails.
func ips(commands ...string) error {
	for _, c := range commands {
		ctx, cancel := context.WithTimeout(context.Background(), netCommand)
		cmd := exec.CommandContext(ctx, "ip", strings.Fields(c)...)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// ipOutput runs one command and returns what it prints.
func ipOutput(command string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), netCommand)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", strings.Fields(command)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ip %s: %w: %s", command, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// sweep removes the networks of processes that are no more. It returns their names.
func sweep() (swept []string, err error) {
	found := make(map[string]*network)
	for _, dir := range []string{"/run/netns", "/sys/class/net"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if name, node, ok := ownName(e.Name()); ok {
				if found[name] == nil {
					found[name] = &network{name: name}
				}
				found[name].size = max(found[name].size, node)
			}
		}
	}
	for name, n := range found {
		pid := strings.TrimRight(strings.TrimPrefix(name, netPrefix), "t")
		if _, err := os.Stat("/proc/" + pid); !errors.Is(err, os.ErrNotExist) {
			continue // its process lives, or another has its number: it is left alone
		}
		if err := n.remove(); err != nil {
			return swept, err
		}
		swept = append(swept, name)
	}
	return swept, nil
}

// ownName parses the name of a bridge (…b) or a namespace (…n3) that a network made: its network, and the node's number.
func ownName(s string) (name string, node int, ok bool) {
	rest, own := strings.CutPrefix(s, netPrefix)
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	if !own || digits == 0 {
		return "", 0, false
	}
	name, rest = netPrefix+rest[:digits], rest[digits:]
	if strings.HasPrefix(rest, "t") {
		name, rest = name+"t", rest[1:]
	}
	if rest == "b" {
		return name, 0, true
	}
	number, isNode := strings.CutPrefix(rest, "n")
	node, err := strconv.Atoi(number)
	return name, node, isNode && err == nil
}
