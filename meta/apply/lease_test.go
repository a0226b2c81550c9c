package apply_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
)

// leaseAt is the lease whose home is a key of eight bytes.
func leaseAt(home string) int64 { return int64(binary.BigEndian.Uint64([]byte(home))) }

func leasePut(t fataler, key, value string, lease int64, keep bool) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_Put{Put: marshal(t, &pb.PutRequest{
		Key: []byte(key), Value: []byte(value), Lease: lease, IgnoreLease: keep,
	})}}
}

func leaseGrant(id, ttl int64) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_LeaseGrant{LeaseGrant: &kvpb.LeaseGrant{Id: id, Ttl: ttl}}}
}

func leaseRevoke(c *kvpb.LeaseRevoke) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_LeaseRevoke{LeaseRevoke: c}}
}

func leaseAttach(id int64, s *kvpb.LeaseSpan) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_LeaseAttach{LeaseAttach: &kvpb.LeaseAttach{Id: id, Span: s}}}
}

func leaseAdmit(c *kvpb.LeaseAdmit) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_LeaseAdmit{LeaseAdmit: c}}
}

func leaseEvict(key string, id, granted int64) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_LeaseEvict{LeaseEvict: &kvpb.LeaseEvict{Key: []byte(key), Id: id, GrantedRevision: granted}}}
}

// parseLease reads commands of leases, which are named by the key of their home: grant <lease> <ttl> | revoke <lease> [begin | <grant> [<start> <end> where it
// was evicted]] |
// attach <lease> <start> <end> | admit <key> <lease> <grant> <ticket> <start> <end> | evict <key> <lease> <grant> | put-leased <key>
// <value> <lease> | put-kept <key> <value> (with the lease that it has). A dot is no bound.
func parseLease(t *testing.T, verb, arg string) *kvpb.Command {
	args := strings.Fields(arg)
	bound := func(i int) []byte { return []byte(strings.Trim(args[i], ".")) }
	switch verb {
	case "grant":
		return leaseGrant(leaseAt(args[0]), number(t, args[1]))
	case "grant-0":
		return leaseGrant(0, 10)
	case "revoke":
		c := &kvpb.LeaseRevoke{Id: leaseAt(args[0])}
		switch {
		case len(args) == 4:
			c.Evicted = []*kvpb.LeaseSpan{{Start: bound(2), End: bound(3)}}
			fallthrough
		case len(args) == 2 && args[1] != "begin":
			c.GrantedRevision = number(t, args[1])
		case len(args) == 2:
			c.Begin = true
		}
		return leaseRevoke(c)
	case "attach":
		return leaseAttach(leaseAt(args[0]), &kvpb.LeaseSpan{Start: bound(1), End: bound(2)})
	case "admit":
		return leaseAdmit(&kvpb.LeaseAdmit{
			Key: []byte(args[0]), Id: leaseAt(args[1]), GrantedRevision: number(t, args[2]), Ticket: number(t, args[3]),
			Span: &kvpb.LeaseSpan{Start: bound(4), End: bound(5)},
		})
	case "evict":
		return leaseEvict(args[0], leaseAt(args[1]), number(t, args[2]))
	case "put-leased":
		return leasePut(t, args[0], args[1], leaseAt(args[2]), false)
	case "put-kept":
		return leasePut(t, args[0], args[1], 0, true)
	}
	return nil
}

func printLease(b *strings.Builder, m proto.Message) {
	switch r := m.(type) {
	case *kvpb.LeaseGrantResponse:
		fmt.Fprintf(b, "granted %s, at %d\n", formatLease(r.Lease), r.Revision)
	case *kvpb.LeaseRevokeResponse:
		fmt.Fprintf(b, "ended %v, %d deleted at %d: %s\n", r.Ended, r.Deleted, r.Revision, formatLease(r.Lease))
	case *kvpb.LeaseAttachResponse:
		fmt.Fprintf(b, "attached: %s\n", formatLease(r.Lease))
	case *kvpb.LeaseAdmitResponse:
		fmt.Fprintf(b, "admitted %v\n", r.Admitted)
	case *kvpb.LeaseEvictResponse:
		fmt.Fprintf(b, "evicted from %s, %d deleted at %d\n", formatSpans([]*kvpb.LeaseSpan{r.Span}), r.Deleted, r.Revision)
	}
}

func printLeases(b *strings.Builder, out *apply.Result) {
	for _, c := range out.Leases {
		gone := ""
		if c.Gone {
			gone = " is gone"
		}
		fmt.Fprintf(b, "lease %s%s\n", formatLease(c.Lease), gone)
	}
	if out.LeasesMoved {
		b.WriteString("leases have moved\n")
	}
}

func formatLease(rec *kvpb.LeaseRecord) string {
	s := fmt.Sprintf("%s grant %d ttl %d", eval.LeaseHome(rec.Id), rec.GrantedRevision, rec.Ttl)
	if rec.Ending {
		s += " ending"
	}
	if len(rec.Spans) > 0 {
		s += " in " + formatSpans(rec.Spans)
	}
	return s
}

func formatSpans(spans []*kvpb.LeaseSpan) string {
	out := make([]string, len(spans))
	for i, s := range spans {
		out[i] = fmt.Sprintf("[%s, %s)", s.Start, s.End)
	}
	return strings.Join(out, " ")
}

// leases prints all that a range holds of leases.
func leases(t fataler, r engine.Reader, id base.RangeID) string {
	t.Helper()
	var b strings.Builder
	all, next, err := eval.ReadLeases(r, id, 0, 1000)
	must(t, err)
	if next != 0 {
		t.Fatalf("more than %d leases", len(all))
	}
	for _, rec := range all {
		fmt.Fprintf(&b, "lease %s\n", formatLease(rec))
	}
	for _, span := range []keys.Span{keys.RangeLeaseGuestSpan(id), keys.RangeLeaseKeysSpan(id), keys.RangeLeaseEvictedSpan(id), {Start: keys.RangeLeaseGrants(id), End: append(keys.RangeLeaseGrants(id), 0)}} {
		it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
		must(t, err)
		for ok := it.First(); ok; ok = it.Next() {
			v, err := it.Value()
			must(t, err)
			lease, key, named := keys.LeaseOf(it.Key())
			guest := &kvpb.LeaseGuest{}
			switch {
			case named && len(key) > 0:
				fmt.Fprintf(&b, "%s holds %s\n", eval.LeaseHome(lease), key)
			case named:
				must(t, proto.Unmarshal(v, guest))
				fmt.Fprintf(&b, "guest %s grant %d in %s\n", eval.LeaseHome(lease), guest.GrantedRevision, formatSpans(guest.Spans))
			default:
				fmt.Fprintf(&b, "%s = %d\n", strings.TrimPrefix(keys.Pretty(it.Key()), fmt.Sprintf("/range/%d/", id)), binary.BigEndian.Uint64(v))
			}
		}
		must(t, it.Error())
		must(t, it.Close())
	}
	return b.String()
}
