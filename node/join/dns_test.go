package join

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsServer is a name server on loopback whose answers change while it runs, over UDP and TCP at one port.
type dnsServer struct {
	t       *testing.T
	udp     net.PacketConn
	tcp     net.Listener
	mu      sync.Mutex
	hosts   map[string][]netip.Addr // by name, with its last dot
	records map[string][]*net.SRV   // likewise
	mood    mood
	asked   map[mood]chan struct{} // closed at the first question in that mood
	overTCP chan struct{}          // likewise at the first one over TCP; nil: nobody waits
	conns   []net.Conn             // of resolvers
	over    bool
}

// mood is how the server answers.
type mood int

const (
	well      mood = iota
	silent         // not at all
	truncated      // over UDP: the answer is cut off, ask over TCP
	cutOff         // the same, and nothing comes over TCP
	malformed      // with the question's id and rubbish behind it
	failing        // it cannot say now
)

func newDNS(t *testing.T) *dnsServer {
	d := &dnsServer{t: t, hosts: make(map[string][]netip.Addr), records: make(map[string][]*net.SRV), asked: make(map[mood]chan struct{})}
	for d.udp == nil { // a port that is free for both
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if d.udp, err = net.ListenPacket("udp", l.Addr().String()); err != nil {
			d.udp = nil
			l.Close()
			continue
		}
		d.tcp = l
	}
	var wg sync.WaitGroup
	wg.Go(d.serveUDP)
	wg.Go(d.serveTCP)
	t.Cleanup(func() {
		d.udp.Close()
		d.tcp.Close()
		d.mu.Lock()
		d.over = true
		for _, c := range d.conns {
			c.Close()
		}
		d.mu.Unlock()
		wg.Wait()
	})
	return d
}

// resolver is Go's own, with this server in place of the machine's. What it still waits for when it is told to stop ends with
// the server.
func (d *dnsServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		c, err := dialer.DialContext(ctx, network, d.tcp.Addr().String())
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.over {
			c.Close()
			return nil, net.ErrClosed
		}
		d.conns = append(d.conns, c)
		return c, nil
	}}
}

func (d *dnsServer) host(name string, ips ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hosts[name] = nil
	for _, ip := range ips {
		d.hosts[name] = append(d.hosts[name], netip.MustParseAddr(ip))
	}
}

func (d *dnsServer) service(name string, records ...*net.SRV) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[name] = records
}

// set has it answer in another way, and returns what is closed when somebody was answered so.
func (d *dnsServer) set(m mood) (asked <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mood = m
	c := make(chan struct{})
	d.asked[m] = c
	return c
}

// answeredOverTCP has it cut off what it says over UDP, and returns what is closed when somebody asks over TCP.
func (d *dnsServer) answeredOverTCP() <-chan struct{} {
	d.set(truncated)
	d.mu.Lock()
	defer d.mu.Unlock()
	c := make(chan struct{})
	d.overTCP = c
	return c
}

func (d *dnsServer) serveUDP() {
	buf := make([]byte, 4096)
	for {
		n, from, err := d.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := d.answer(buf[:n], false); answer != nil {
			_, _ = d.udp.WriteTo(answer, from)
		}
	}
}

func (d *dnsServer) serveTCP() {
	for {
		c, err := d.tcp.Accept()
		if err != nil {
			return
		}
		d.oneTCP(c)
		c.Close()
	}
}

func (d *dnsServer) oneTCP(c net.Conn) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	q := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, q); err != nil {
		return
	}
	if answer := d.answer(q, true); answer != nil {
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	}
}

func (d *dnsServer) answer(question []byte, tcp bool) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.asked[d.mood]; c != nil {
		close(c)
		d.asked[d.mood] = nil
	}
	if tcp && d.overTCP != nil {
		close(d.overTCP)
		d.overTCP = nil
	}
	var q dnsmessage.Message
	if err := q.Unpack(question); err != nil || len(q.Questions) != 1 {
		d.t.Errorf("a question that none is: %v", err)
		return nil
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true, RecursionDesired: q.RecursionDesired}, Questions: q.Questions}
	switch {
	case d.mood == silent, d.mood == cutOff && tcp:
		return nil
	case d.mood == truncated && !tcp, d.mood == cutOff:
		m.Truncated = true
	case d.mood == malformed:
		return append(binary.BigEndian.AppendUint16(nil, q.ID), 0x80, 0x00, 0xff, 0xff, 0xff, 0xff, 1, 2, 3)
	case d.mood == failing:
		m.RCode = dnsmessage.RCodeServerFailure
	default:
		d.fill(&m)
	}
	b, err := m.Pack()
	if err != nil {
		d.t.Errorf("an answer cannot be packed: %v", err)
	}
	return b
}

func (d *dnsServer) fill(m *dnsmessage.Message) {
	q := m.Questions[0]
	name := strings.ToLower(q.Name.String())
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET}
	put := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: body})
	}
	if len(d.hosts[name])+len(d.records[name]) == 0 {
		m.RCode = dnsmessage.RCodeNameError
		return
	}
	for _, ip := range d.hosts[name] {
		switch {
		case q.Type == dnsmessage.TypeA && ip.Is4():
			put(&dnsmessage.AResource{A: ip.As4()})
		case q.Type == dnsmessage.TypeAAAA && ip.Is6():
			put(&dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
	for _, r := range d.records[name] {
		if q.Type == dnsmessage.TypeSRV {
			put(&dnsmessage.SRVResource{Priority: r.Priority, Weight: r.Weight, Port: r.Port, Target: dnsmessage.MustNewName(r.Target)})
		}
	}
}
