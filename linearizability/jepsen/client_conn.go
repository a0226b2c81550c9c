package jepsen

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
)

const (
	// patience is how long a client waits for an answer. It is well above an election, so that what is slow is not lost,
	// and well below a fault, so that clients notice one.
	patience = 2 * time.Second
	// dialPatience is how long it waits for a connection. Nothing was asked yet, so that giving up costs nothing.
	dialPatience = time.Second
	// answerBytes is the largest answer. Reads of a whole prefix are large; one that does not fit would be a failed read.
	answerBytes = 64 << 20
)

// errNoConnection: the node was not asked anything.
var errNoConnection = errors.New("no connection")

// link is one connection to one node. What is sent over it is sent once: it does not choose among addresses, and gRPC
// tries nothing again that may have reached the node.
type link struct {
	address  string
	conn     *grpc.ClientConn
	kv       pb.KVClient
	keyspace keyspace
}

// dial opens a connection and waits until it is there, so that no request has an unknown outcome only because nobody
// listened.
func dial(ctx context.Context, address string, ks keyspace) (*link, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: dialPatience}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(answerBytes)),
	)
	if err != nil {
		return nil, fmt.Errorf("%w to %s: %w", errNoConnection, address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	conn.Connect()
	for {
		state := conn.GetState()
		switch {
		case state == connectivity.Ready:
			return &link{address, conn, pb.NewKVClient(conn), ks}, nil
		case state == connectivity.TransientFailure || !conn.WaitForStateChange(ctx, state):
			_ = conn.Close() // nothing was sent on it
			return nil, fmt.Errorf("%w to %s", errNoConnection, address)
		}
	}
}

func (l *link) close() { _ = l.conn.Close() } // what was under way ends with an error of its own

// call carries out one request, once.
func (l *link) call(ctx context.Context, req proto.Message) (proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if l.keyspace.name != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, l.keyspace.name)
	}
	switch r := req.(type) {
	case *pb.RangeRequest:
		return answer(l.kv.Range(ctx, r))
	case *pb.PutRequest:
		return answer(l.kv.Put(ctx, r))
	case *pb.DeleteRangeRequest:
		return answer(l.kv.DeleteRange(ctx, r))
	case *pb.TxnRequest:
		return answer(l.kv.Txn(ctx, r))
	case *pb.CompactionRequest:
		return answer(l.kv.Compact(ctx, r))
	}
	return l.watch(ctx, req)
}

// answer keeps a nil pointer from becoming a message.
func answer[M proto.Message](m M, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}
