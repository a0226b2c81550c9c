package join

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairndb/cairn/internal/base"
)

// Resolver looks names up in DNS. A net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

// A part of --join is an address, or a name that leads to some: dns:NAME:PORT to all A and AAAA addresses of NAME, srv:NAME to
// the hosts and ports of its SRV records. A name is looked up in each round anew, for what it leads to changes.
const (
	dnsPrefix = "dns:"
	srvPrefix = "srv:"
)

// source is a part of --join. Either name is empty, or it is a name to look up: with a port, for its addresses; without, for
// its SRV records.
type source struct{ text, name, port string }

func parseSource(text string) (source, error) {
	if CheckAddress(text) == nil {
		return source{text: text}, nil // also of hosts that are called dns or srv
	}
	if rest, ok := strings.CutPrefix(text, dnsPrefix); ok {
		if err := CheckAddress(rest); err != nil {
			return source{}, fmt.Errorf("%w: give dns:NAME:PORT", err)
		}
		name, port, _ := net.SplitHostPort(rest) // it was just checked
		if net.ParseIP(name) != nil {
			return source{}, fmt.Errorf("%q is an address and no name: give it without %q", text, dnsPrefix)
		}
		return source{text, name, port}, nil
	}
	if name, ok := strings.CutPrefix(text, srvPrefix); ok {
		if name == "" || strings.ContainsAny(name, ": \t") {
			return source{}, fmt.Errorf("%q is not the name of SRV records, which have the ports too: give srv:_cairn._tcp.example.org", text)
		}
		return source{text: text, name: name}, nil
	}
	return source{}, CheckAddress(text)
}

// CheckSources says what is wrong with the parts of --join, and with how many nodes are expected through them.
func CheckSources(sources []string, expect int) (errs []error) {
	names := false
	for _, text := range sources {
		s, err := parseSource(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("an address of --join: %w", err))
		}
		names = names || s.name != ""
	}
	if len(sources) > base.JoinAddresses {
		errs = append(errs, fmt.Errorf("--join has %d parts; at most %d may be given", len(sources), base.JoinAddresses))
	}
	switch {
	case expect < 0 || expect > base.JoinAddresses:
		errs = append(errs, fmt.Errorf("--bootstrap-expect %d: give the number of nodes that make the cluster, at most %d", expect, base.JoinAddresses))
	case names && expect == 1:
		errs = append(errs, errors.New("--bootstrap-expect 1, and --join has a name to look up: each node that finds the name empty, or "+
			"cannot look it up, would make a cluster of its own: expect more than half of the nodes that are started, or none and run cairn init"))
	case !names && expect > len(sources)+1:
		errs = append(errs, fmt.Errorf("--bootstrap-expect %d: --join names %d nodes, so they cannot come together: name all of them in --join",
			expect, len(sources)))
	}
	return errs
}

// place is an address to ask.
type place struct {
	address string
	looked  bool // a name led to it: what DNS says may be old, so that it may be anybody's by now
}

// discover looks up what --join leads to now, each address once. A name that leads nowhere is one place that is silent. Of more
// than can be asked, other ones are drawn each time.
func (e *Entry) discover(ctx context.Context) (places []place, silent []string) {
	found := make([][]string, len(e.sources))
	failed := make([]error, len(e.sources))
	var g errgroup.Group
	for i, s := range e.sources {
		if s.name == "" {
			places = append(places, place{address: s.text})
			continue
		}
		g.Go(func() error {
			found[i], failed[i] = lookup(ctx, e.cfg.Resolver, e.cfg.LookupTimeout, s)
			return nil
		})
	}
	_ = g.Wait() // each has its own error
	var looked []place
	for i, s := range e.sources {
		if err := failed[i]; err != nil {
			silent = append(silent, fmt.Sprintf("%s: %v", s.text, err))
		}
		for _, a := range found[i] {
			if p := (place{a, true}); !slices.Contains(looked, p) && !slices.Contains(places, place{address: a}) {
				looked = append(looked, p)
			}
		}
	}
	mrand.Shuffle(len(looked), func(i, j int) { looked[i], looked[j] = looked[j], looked[i] })
	looked = looked[:min(len(looked), max(0, base.JoinAddresses-len(places)))]
	slices.SortFunc(looked, func(p, q place) int { return cmp.Compare(p.address, q.address) })
	return append(places, looked...), silent
}

// plain is why a look-up failed, without the port that it was asked from: what is the same in each round is logged once.
func plain(err error) error {
	var d *net.DNSError
	if !errors.As(err, &d) {
		return err
	}
	reason := d.Err
	if _, after, ok := strings.Cut(reason, "->"); ok {
		reason = after
	}
	return fmt.Errorf("%s: %s", d.Name, reason)
}

// lookup returns the addresses that a name leads to. Some and an error: there may be more.
func lookup(ctx context.Context, r Resolver, limit time.Duration, s source) (addresses []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if s.port != "" {
		addresses, err = lookupHost(ctx, r, s.name, s.port)
	} else {
		addresses, err = lookupService(ctx, r, s.name)
	}
	if err == nil && len(addresses) == 0 {
		err = errors.New("the name leads to no address")
	}
	return addresses, err
}

func lookupHost(ctx context.Context, r Resolver, name, port string) (addresses []string, err error) {
	ips, err := r.LookupNetIP(ctx, "ip", name)
	for _, ip := range ips {
		if a := net.JoinHostPort(ip.Unmap().String(), port); CheckAddress(a) == nil {
			addresses = append(addresses, a)
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), plain(err)
}

// lookupService looks up the hosts of SRV records too, by the same resolver.
func lookupService(ctx context.Context, r Resolver, name string) (addresses []string, err error) {
	// A resolver leaves out records that are malformed, and says so beside those that are not.
	_, records, err := r.LookupSRV(ctx, "", "", name)
	records = slices.DeleteFunc(records, func(s *net.SRV) bool { return s == nil || s.Target == "." || s.Port == 0 })
	slices.SortFunc(records, func(a, b *net.SRV) int { return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port)) })
	records = slices.CompactFunc(records, func(a, b *net.SRV) bool { return a.Target == b.Target && a.Port == b.Port })
	mrand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	records = records[:min(len(records), base.JoinAddresses)]
	var mu sync.Mutex
	errs := []error{plain(err)}
	var g errgroup.Group
	for _, s := range records {
		g.Go(func() error {
			found, err := lookupHost(ctx, r, s.Target, strconv.Itoa(int(s.Port)))
			mu.Lock()
			defer mu.Unlock()
			if addresses = append(addresses, found...); err != nil {
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are collected
	slices.SortFunc(errs[1:], func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	slices.Sort(addresses)
	return slices.Compact(addresses), errors.Join(errs...)
}
