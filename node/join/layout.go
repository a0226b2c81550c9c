package join

import (
	"encoding/binary"
)

// The records in `sys`. A node's key sorts as its id does.
const (
	nodePrefix  = "node/"
	counterName = "counter/node"
)

// nodeKey is the key of a node's record.
func nodeKey(id uint64) []byte { return binary.BigEndian.AppendUint64([]byte(nodePrefix), id) }

// nodeSpan is the keys of all node records.
func nodeSpan() (start, end []byte) { return []byte(nodePrefix), []byte("node0") }

// counterKey is the key of the highest node id that was given.
func counterKey() []byte { return []byte(counterName) }

// RecordSpan holds the keys of all node records in `sys`; the values are metapb.NodeRecord.
func RecordSpan() (start, end []byte) { return nodeSpan() }
