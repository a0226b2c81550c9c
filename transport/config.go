package transport

import (
	"errors"
	"log/slog"

	"github.com/cairndb/cairn/internal/base"
)

// ErrUnreachable says that a node cannot be reached now; it is wrapped with the reason. Nothing was sent.
var ErrUnreachable = errors.New("the node cannot be reached")

// ErrClosed answers what is sent after Close.
var ErrClosed = errors.New("the transport is closed")

// GRPCConfig is what a gRPC transport is made of.
type GRPCConfig struct {
	ClusterID   uint64
	Node        base.NodeID
	Incarnation base.Incarnation
	Address     string // where others reach this node
	Resolver    Resolver
	Handler     Handler
	Logger      *slog.Logger
}

// EnsureDefaults fills what was left empty.
func (c *GRPCConfig) EnsureDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate returns every problem at once.
func (c *GRPCConfig) Validate() error {
	var errs []error
	if c.ClusterID == 0 {
		errs = append(errs, errors.New("no cluster id"))
	}
	if c.Node == 0 || c.Incarnation == 0 {
		errs = append(errs, errors.New("no node id or incarnation"))
	}
	if c.Resolver == nil || c.Handler == nil {
		errs = append(errs, errors.New("no resolver or handler"))
	}
	return errors.Join(errs...)
}
