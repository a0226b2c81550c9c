package sysrec

import (
	"encoding/binary"

	"github.com/cairndb/cairn/internal/base"
)

// Where the records are that several packages read: an operation under op/<id>, a policy under policy/<keyspace id>, both ids eight
// bytes, so that keys sort as ids do.
const (
	operationPrefix = "op/"
	policyPrefix    = "policy/"
)

// OperationSpan holds the keys of all operations; the values are metapb.Operation.
func OperationSpan() (start, end []byte) { return span(operationPrefix) }

// OperationKey is the key of one.
func OperationKey(id uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(operationPrefix), id)
}

// PolicySpan holds the keys of all policies; the values are metapb.PolicyRecord.
func PolicySpan() (start, end []byte) { return span(policyPrefix) }

// PolicyKey is the key of a keyspace's policy; that of keyspace 0 is the cluster's.
func PolicyKey(ks base.KeyspaceID) []byte {
	return binary.BigEndian.AppendUint64([]byte(policyPrefix), uint64(ks))
}

// span holds the keys that begin with a prefix, which ends with a slash.
func span(prefix string) (start, end []byte) {
	end = []byte(prefix)
	end[len(end)-1]++
	return []byte(prefix), end
}
