package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/api/clusterpb"
)

// initTimeout bounds an init: the node asks the others of its --join, one of which may be where packets vanish.
const initTimeout = time.Minute

func newInit(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a new cluster with a node that waits for it",
		Long: `Make a new cluster whose first member is the node at --host. It is done once in the life of a cluster:
the other nodes, started with --join, come in by themselves. Not needed with --bootstrap-expect.`,
		Example: `  cairn start --store ./n1 --listen 127.0.0.1:7401 &
  cairn init --host 127.0.0.1:7401`,
		Args: cobra.NoArgs,
	}
	host := addHost(c, e)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(c.Context(), initTimeout)
		defer cancel()
		conn, err := host.dial()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		resp, err := clusterpb.NewClusterClient(conn).Init(ctx, &clusterpb.InitRequest{})
		if err != nil {
			return host.explain("init", err)
		}
		if err := waitServing(ctx, conn); err != nil {
			return host.explain(fmt.Sprintf("init: cluster %x is made, and the node does not serve it yet", resp.ClusterId), err)
		}
		_, err = fmt.Fprintf(e.out, "cluster %x is made; node %d at %s is its first member\n",
			resp.ClusterId, resp.NodeId, host.address)
		return err
	}
	return c
}

// waitServing returns when the node says that it serves clients.
func waitServing(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if resp.Status == healthpb.HealthCheckResponse_SERVING {
			return nil
		}
	}
}
