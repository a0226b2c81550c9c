package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/node/join"
)

const (
	// defaultAddress is where a node listens, and where the tools look for one, if nothing else is said. Nothing
	// beyond this machine can reach it: a node that others are to reach is given --listen.
	defaultAddress = "127.0.0.1:7400"
	hostVariable   = "CAIRN_HOST"
)

// hostFlag is the --host of the verbs that talk to a node.
type hostFlag struct{ address string }

func addHost(c *cobra.Command, e env) *hostFlag {
	h := &hostFlag{address: defaultAddress}
	if v := e.getenv(hostVariable); v != "" {
		h.address = v
	}
	c.Flags().StringVar(&h.address, "host", h.address, "address of a node, `HOST:PORT`; "+hostVariable+" sets the default")
	return h
}

// dial opens a connection to the node. The first call finds out whether somebody is there.
func (h *hostFlag) dial() (*grpc.ClientConn, error) {
	if err := join.CheckAddress(h.address); err != nil {
		return nil, &usageError{[]error{fmt.Errorf("--host: %w: give the address of a node, HOST:PORT", err)}}
	}
	return join.DialWith(h.address, grpc.WithUnaryInterceptor(tellAnswers))
}

// unanswered is the error of a call that nobody answered: it comes from this end.
type unanswered struct{ error }

// GRPCStatus is what makes it an error of gRPC.
func (u *unanswered) GRPCStatus() *status.Status { return status.Convert(u.error) }

// tellAnswers marks the errors of calls that nobody answered: by their codes they cannot be told from what a node says of itself, such
// as that it has no leader. An answer has headers, and be they in its trailer.
func tellAnswers(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var header, trailer metadata.MD
	err := invoke(ctx, method, req, reply, cc, append(opts, grpc.Header(&header), grpc.Trailer(&trailer))...)
	if err != nil && len(header)+len(trailer) == 0 {
		return &unanswered{err}
	}
	return err
}

// heard is tellAnswers for a stream that has ended.
func heard(s grpc.ClientStream, err error) error {
	if s == nil {
		return &unanswered{err}
	}
	if header, herr := s.Header(); herr != nil || len(header)+len(s.Trailer()) == 0 {
		return &unanswered{err}
	}
	return err
}

// explain says what a node's refusal means for who ran the command.
func (h *hostFlag) explain(what string, err error) error {
	s := status.Convert(err)
	if s.Message() == join.ErrNotInitialised.Error() {
		return fmt.Errorf("%s: the node at %s is not part of a cluster yet: run cairn init --host %[2]s, or start it with --join",
			what, h.address)
	}
	var silence *unanswered
	switch silent := errors.As(err, &silence); s.Code() {
	case codes.Unavailable:
		if !silent {
			return fmt.Errorf("%s: the node at %s cannot do that now: %s: try again, or ask another node with --host", what, h.address, s.Message())
		}
		return fmt.Errorf("%s: the node at %s does not answer: %s: check that it runs and that --host is its address",
			what, h.address, s.Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: the node at %s did not answer in time: try again, or ask another node with --host",
			what, h.address)
	case codes.Unimplemented:
		return fmt.Errorf("%s: what answers at %s is not a Cairn node: give the address of one with --host", what, h.address)
	}
	return fmt.Errorf("%s: %s", what, s.Message())
}
