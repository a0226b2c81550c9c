package dispatch

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
)

// checkCommand says why a command that another node wants proposed must not enter a log. What is committed and cannot be
// read stops every replica of its range, so that it is read here, whole, before anybody rests on it. A membership change
// is proposed by the leader's own node only, as a Raft conf change.
func checkCommand(data []byte) error {
	cmd := &kvpb.Command{}
	if err := proto.Unmarshal(data, cmd); err != nil {
		return refusedCommand(err)
	}
	var err error
	switch body := cmd.Body.(type) {
	case *kvpb.Command_Put:
		err = proto.Unmarshal(body.Put, &pb.PutRequest{})
	case *kvpb.Command_DeleteRange:
		err = proto.Unmarshal(body.DeleteRange, &pb.DeleteRangeRequest{})
	case *kvpb.Command_Txn:
		err = proto.Unmarshal(body.Txn, &pb.TxnRequest{})
	case *kvpb.Command_Compaction:
		err = proto.Unmarshal(body.Compaction, &pb.CompactionRequest{})
	case *kvpb.Command_PublishDescriptor, *kvpb.Command_UnpublishDescriptor, *kvpb.Command_Split, *kvpb.Command_RaiseRevision,
		*kvpb.Command_Freeze, *kvpb.Command_Merge, *kvpb.Command_GiveUpMerge, *kvpb.Command_Thaw, *kvpb.Command_Absorbed,
		*kvpb.Command_LeaseGrant, *kvpb.Command_LeaseRevoke, *kvpb.Command_LeaseAttach, *kvpb.Command_LeaseAdmit, *kvpb.Command_LeaseEvict:
	case *kvpb.Command_ChangeReplicas:
		err = errors.New("a membership change is proposed on the leader's node only")
	case nil:
		err = errors.New("a command that this version does not know")
	default:
		err = fmt.Errorf("a %T is not proposed for other nodes", body)
	}
	if err != nil {
		return refusedCommand(err)
	}
	return nil
}

func refusedCommand(cause error) error {
	return status.Error(codes.InvalidArgument, "the command was not proposed: "+cause.Error())
}
