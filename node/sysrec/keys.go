package sysrec

import (
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
)

// Where the records are that several packages read: an operation under op/<id>, a policy under policy/<keyspace id>, an alarm under
// alarm/<node id><type>; ids are eight bytes, so that keys sort as ids do, and an alarm's type is four.
const (
	operationPrefix = "op/"
	policyPrefix    = "policy/"
	alarmPrefix     = "alarm/"
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

// AlarmSpan holds the keys of all alarms; the values are etcdserverpb.AlarmMember.
func AlarmSpan() (start, end []byte) { return span(alarmPrefix) }

// AlarmKey is the key of one.
func AlarmKey(a *pb.AlarmMember) []byte {
	k := binary.BigEndian.AppendUint64([]byte(alarmPrefix), a.MemberID)
	return binary.BigEndian.AppendUint32(k, uint32(a.Alarm))
}

// Alarms decodes the values of alarms.
func Alarms(raw [][]byte) (out []*pb.AlarmMember, err error) {
	for _, b := range raw {
		a := &pb.AlarmMember{}
		if err := proto.Unmarshal(b, a); err != nil {
			return nil, &base.Corruption{Where: "an alarm", Cause: err}
		}
		out = append(out, a)
	}
	return out, nil
}

// span holds the keys that begin with a prefix, which ends with a slash.
func span(prefix string) (start, end []byte) {
	end = []byte(prefix)
	end[len(end)-1]++
	return []byte(prefix), end
}
