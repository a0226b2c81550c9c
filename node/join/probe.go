package join

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
)

// Dialer opens a connection to a node's address. It does not wait for it to be up.
type Dialer func(address string) (*grpc.ClientConn, error)

// Dial is the Dialer of a cluster without encryption. It goes straight to the address, whatever proxy the
// environment names: nodes of a cluster see each other, or are not one.
func Dial(address string) (*grpc.ClientConn, error) { return DialWith(address) }

// DialWith is Dial with more options.
func DialWith(address string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		// The status of many ranges is larger than gRPC's default of 4 MiB.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(base.MaxFrameBytes)))...)
}

// uuidLen is the length of a store's uuid.
const uuidLen = 16

// CheckAddress says whether others could reach a node at the address.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT: %w", address, err)
	}
	if host == "" {
		return fmt.Errorf("%q names no host", address)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%q is every address of a machine and none that others could reach", address)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q has no port that others could reach (1 to 65535)", address)
	}
	return nil
}

// identify asks who answers at conn's other end.
func identify(ctx context.Context, conn *grpc.ClientConn, opts ...grpc.CallOption) (*clusterpb.IdentityResponse, error) {
	id, err := clusterpb.NewClusterClient(conn).Identity(ctx, &clusterpb.IdentityRequest{}, opts...)
	if err != nil {
		return nil, fromWire(err)
	}
	if len(id.StoreUuid) != uuidLen {
		return nil, fmt.Errorf("it says that its store's uuid is %x, which is none", id.StoreUuid)
	}
	return id, nil
}

// probe asks who answers at the address.
func probe(ctx context.Context, dial Dialer, address string, opts ...grpc.CallOption) (*clusterpb.IdentityResponse, error) {
	conn, err := dial(address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // nothing is in flight, and nothing could be done about it
	return identify(ctx, conn, opts...)
}
