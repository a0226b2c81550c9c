package apply

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/archive"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// Exported is a page of versions as a snapshot of the clients' data has them.
type Exported struct {
	Payload []byte // of a block
	Count   int
	End     bool
	Reached Position // unless it is the end
}

// ExportVersions reads a page of the range d: the same versions as HashVersions hashes.
func ExportVersions(r engine.Reader, d *metapb.RangeDescriptor, p Page, pace func(bytes int) error) (Exported, error) {
	h := hasher{compacted: p.Compacted, limit: p.Revision}
	var e archive.Encoder
	var v archive.Version
	got, err := h.page(r, d, &p, pace, func(key, value []byte) error {
		var ok bool
		if _, v.Key, v.Revision, ok = keys.DecodeData(v.Key[:0], key); !ok {
			return &base.Corruption{Where: keys.Pretty(key), Cause: errNoVersion}
		}
		v.Record = value
		e.Add(&v)
		return nil
	})
	if err != nil {
		return Exported{}, err
	}
	return Exported{Count: e.Count(), Payload: e.Payload(), End: got.End, Reached: got.Reached}, nil
}
