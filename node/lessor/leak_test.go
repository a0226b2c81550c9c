package lessor

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing that a test started runs on after it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
