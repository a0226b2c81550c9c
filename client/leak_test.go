package client

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing that a client started runs on after it was closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
