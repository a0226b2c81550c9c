package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// The payload of a block of versions, which nodes send to each other as it is: keys in order, each with its newest version first.
//
//	shared    uvarint, how many bytes of the key are those of the version before
//	unshared  uvarint, how many follow here
//	revision  uvarint
//	length    uvarint, of the record
//	the key's own bytes, and the record

// Encoder makes the payload of a block of versions.
type Encoder struct {
	out   []byte
	key   []byte // of the last version
	count int
}

// Add appends a version.
func (e *Encoder) Add(v *Version) {
	shared := 0
	for shared < len(e.key) && shared < len(v.Key) && e.key[shared] == v.Key[shared] {
		shared++
	}
	e.out = binary.AppendUvarint(e.out, uint64(shared))
	e.out = binary.AppendUvarint(e.out, uint64(len(v.Key)-shared))
	e.out = binary.AppendUvarint(e.out, uint64(v.Revision))
	e.out = binary.AppendUvarint(e.out, uint64(len(v.Record)))
	e.out = append(append(e.out, v.Key[shared:]...), v.Record...)
	e.key = append(e.key[:0], v.Key...)
	e.count++
}

// Count is how many versions are in the payload.
func (e *Encoder) Count() int { return e.count }

// Payload is what was made. The encoder begins anew.
func (e *Encoder) Payload() []byte {
	out := e.out
	e.out, e.key, e.count = nil, e.key[:0], 0
	return out
}

var errVersions = errors.New("a block of versions is not as it is made")

// EachVersion takes a payload apart. What do is given is valid until it returns. The records are whole ones.
func EachVersion(payload []byte, do func(*Version) error) error {
	var v Version
	for at, b := 0, payload; len(b) > 0; at++ {
		var n [4]uint64
		for i := range n {
			x, used := binary.Uvarint(b)
			if used <= 0 {
				return fmt.Errorf("%w: version %d is cut off", errVersions, at)
			}
			n[i], b = x, b[used:]
		}
		shared, unshared, revision, length := n[0], n[1], n[2], n[3]
		if shared > uint64(len(v.Key)) || unshared > uint64(len(b)) || length > uint64(len(b))-unshared || revision < 1 || revision > 1<<63-1 {
			return fmt.Errorf("%w: a number of version %d is out of bounds", errVersions, at)
		}
		v.Key = append(v.Key[:shared], b[:unshared]...)
		v.Revision, v.Record = base.Revision(revision), b[unshared:unshared+length]
		b = b[unshared+length:]
		if _, err := eval.DecodeRecord(v.Revision, v.Record); err != nil {
			return fmt.Errorf("%w: version %d: %w", errVersions, at, err)
		}
		if err := do(&v); err != nil {
			return err
		}
	}
	return nil
}

// order checks that versions come in theirs.
type order struct {
	key      []byte
	revision base.Revision // of the last version; 0: there was none
}

// next says whether v may follow.
func (o *order) next(v *Version) bool {
	c := bytes.Compare(o.key, v.Key)
	ok := o.revision == 0 || c < 0 || c == 0 && v.Revision < o.revision
	o.key, o.revision = append(o.key[:0], v.Key...), v.Revision
	return ok
}
