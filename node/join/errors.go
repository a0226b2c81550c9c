package join

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Refused: the request cannot succeed as it was made, now or later; Reason says what is wrong and what to do.
type Refused struct{ Reason string }

func (e *Refused) Error() string { return e.Reason }

// ErrNotInitialised answers what only a member of a cluster can answer. Trying again later may succeed.
var ErrNotInitialised = errors.New(
	"this node is not part of a cluster yet: run cairn init, or start it with --join")

func refusef(format string, args ...any) error {
	return &Refused{Reason: fmt.Sprintf(format, args...)}
}

// fromWire turns an answer over the wire back into a Refused if it was one. Everything else may pass: an
// overloaded, stopping, or not yet initialised node, a cut connection.
func fromWire(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.FailedPrecondition, codes.InvalidArgument, codes.PermissionDenied, codes.DataLoss:
		return &Refused{Reason: s.Message()}
	case codes.Unimplemented:
		return &Refused{Reason: "what answers there is not a Cairn node: " + s.Message()}
	}
	return errors.New(s.Message())
}

func isFinal(err error) bool {
	var refused *Refused
	return errors.As(err, &refused)
}
