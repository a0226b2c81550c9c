package keys

import (
	"bytes"
	"encoding/binary"

	"github.com/cairndb/cairn/internal/base"
)

const (
	escape     = 0x00
	escapedNul = 0xFF
	terminator = 0x01

	// RevisionLen is the length of the suffix that follows a data key's prefix.
	RevisionLen = 8

	dataHeader = 1 + 8
)

func dataStart(dst []byte, ks base.KeyspaceID) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefixData), uint64(ks))
}

// DataPrefix appends everything that all versions of a key have in common.
func DataPrefix(dst []byte, ks base.KeyspaceID, key []byte) []byte {
	dst = appendEscaped(dataStart(dst, ks), key)
	return append(dst, escape, terminator)
}

// Data appends the key of one version.
func Data(dst []byte, ks base.KeyspaceID, key []byte, rev base.Revision) []byte {
	return binary.BigEndian.AppendUint64(DataPrefix(dst, ks, key), ^uint64(rev))
}

func appendEscaped(dst, key []byte) []byte {
	for {
		i := bytes.IndexByte(key, escape)
		if i < 0 {
			return append(dst, key...)
		}
		dst = append(append(dst, key[:i]...), escape, escapedNul)
		key = key[i+1:]
	}
}

// DataSpan holds all versions of the keys [start, end) of a keyspace; an empty end is the end of the keyspace.
func DataSpan(ks base.KeyspaceID, start, end []byte) Span {
	s := Span{Start: appendEscaped(dataStart(nil, ks), start)}
	if len(start) > 0 {
		s.Start = append(s.Start, escape, terminator)
	}
	if len(end) == 0 {
		s.End = prefixEnd(dataStart(nil, ks))
	} else {
		s.End = DataPrefix(nil, ks, end)
	}
	return s
}

// KeyspaceSpan holds all data of a keyspace.
func KeyspaceSpan(ks base.KeyspaceID) Span { return DataSpan(ks, nil, nil) }

// DecodeData takes the key of one version apart. The user's key is appended to dst.
func DecodeData(dst, k []byte) (ks base.KeyspaceID, key []byte, rev base.Revision, ok bool) {
	n := Split(k)
	if len(k) != n+RevisionLen || n < dataHeader+2 || k[0] != prefixData {
		return 0, nil, 0, false
	}
	ks = base.KeyspaceID(binary.BigEndian.Uint64(k[1:]))
	key, ok = appendUnescaped(dst, k[dataHeader:n-2])
	rev = base.Revision(^binary.BigEndian.Uint64(k[n:]))
	return ks, key, rev, ok && rev >= 0
}

// DataRevision is the revision of a version's key, without decoding the rest.
func DataRevision(k []byte) (base.Revision, bool) {
	n := Split(k)
	if len(k) != n+RevisionLen || k[0] != prefixData {
		return 0, false
	}
	rev := base.Revision(^binary.BigEndian.Uint64(k[n:]))
	return rev, rev >= 0
}

func appendUnescaped(dst, b []byte) ([]byte, bool) {
	for {
		i := bytes.IndexByte(b, escape)
		if i < 0 {
			return append(dst, b...), true
		}
		if i+1 >= len(b) || b[i+1] != escapedNul {
			return dst, false
		}
		dst = append(append(dst, b[:i]...), escape)
		b = b[i+2:]
	}
}

// Split returns the length of a key's prefix: through the terminator of the user's key for replicated data, the
// whole key otherwise. It never fails: bytes that are no key have no suffix.
func Split(k []byte) int {
	n, _ := split(k)
	return n
}

// EndsAtPrefix says whether k is a prefix that versions share, as DataPrefix makes them: what follows it is a suffix.
func EndsAtPrefix(k []byte) bool {
	n, terminated := split(k)
	return terminated && n == len(k)
}

func split(k []byte) (n int, terminated bool) {
	if len(k) < dataHeader || k[0] != prefixData {
		return len(k), false
	}
	for at := dataHeader; ; {
		i := bytes.IndexByte(k[at:], escape)
		if i < 0 || at+i+1 >= len(k) {
			return len(k), false
		}
		at += i + 2
		if k[at-1] == terminator {
			return at, true
		}
	}
}
