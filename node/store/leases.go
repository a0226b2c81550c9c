package store

import (
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// What a local replica stores of its clients' leases (RFC 6), as it is now. Whether it is as new as it must be is the caller's to know.

// ClientLease reads a lease that lives in a range; nil: there is none.
func (s *Store) ClientLease(id base.RangeID, lease int64) (*kvpb.LeaseRecord, error) {
	return eval.ReadLease(s.eng, id, lease)
}

// ClientLeases reads a page of the leases that live in a range, from one on, and says where the next one begins; 0: there is none, and
// the first one begins there.
func (s *Store) ClientLeases(id base.RangeID, from int64, limit int) ([]*kvpb.LeaseRecord, int64, error) {
	return eval.ReadLeases(s.eng, id, from, limit)
}

// ClientLeaseKeys reads a page of a range's keys that a lease holds, from one on, and says where the next one begins; nil: there is none.
func (s *Store) ClientLeaseKeys(id base.RangeID, lease int64, from []byte, limit int) ([][]byte, []byte, error) {
	return eval.ReadLeaseKeys(s.eng, id, lease, from, limit)
}
