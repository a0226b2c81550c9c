package eval

import (
	"bytes"
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// holdsAll evaluates comparisons up to the first that does not hold.
func (v *view) holdsAll(compares []*pb.Compare) (bool, error) {
	for _, c := range compares {
		if ok, err := v.compare(c); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// compare evaluates one comparison, over a range if it has an end: it holds if it holds for every key there. If there
// is no key, it is made with zeroes, as of a key that was never written; a value that does not exist compares to
// nothing.
func (v *view) compare(c *pb.Compare) (bool, error) {
	if len(c.GetRangeEnd()) == 0 {
		rec, ok, err := v.find.findLive(v.ks, c.GetKey(), v.current)
		if err != nil {
			return false, err
		}
		if !ok {
			return compareMissing(c), nil
		}
		return compareRecord(c, &rec), nil
	}
	s, err := v.scan(c.GetKey(), c.GetRangeEnd(), v.current)
	if err != nil {
		return false, err
	}
	empty, holds := true, true
	for holds && s.next() {
		empty = false
		var rec Record
		if rec, err = s.record(); err != nil {
			break
		}
		holds = compareRecord(c, &rec)
	}
	if cerr := s.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return false, err
	}
	if empty {
		return compareMissing(c), nil
	}
	return holds, nil
}

func compareMissing(c *pb.Compare) bool {
	return c.GetTarget() != pb.Compare_VALUE && compareRecord(c, &Record{})
}

// compareRecord compares with what the request names. A request that names a value of another kind than its target
// means zero or the empty value; of an unknown target everything is equal, and an unknown result always holds.
func compareRecord(c *pb.Compare, r *Record) bool {
	d := 0
	switch c.GetTarget() {
	case pb.Compare_VALUE:
		d = bytes.Compare(r.Value, c.GetValue())
	case pb.Compare_CREATE:
		d = cmp.Compare(int64(r.Create), c.GetCreateRevision())
	case pb.Compare_MOD:
		d = cmp.Compare(int64(r.Mod), c.GetModRevision())
	case pb.Compare_VERSION:
		d = cmp.Compare(r.Version, c.GetVersion())
	case pb.Compare_LEASE:
		d = cmp.Compare(r.Lease, c.GetLease())
	}
	switch c.GetResult() {
	case pb.Compare_EQUAL:
		return d == 0
	case pb.Compare_NOT_EQUAL:
		return d != 0
	case pb.Compare_GREATER:
		return d > 0
	case pb.Compare_LESS:
		return d < 0
	}
	return true
}
