package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// builder builds binaries; it does nothing more after its first failure, which is in err.
type builder struct {
	out string // folder
	say func(string, ...any)
	err error
}

// build builds a package of the module in a folder, static and without cgo as the product is shipped, and returns the
// binary's path.
func (b *builder) build(ctx context.Context, name, module, pkg string) string {
	binary := filepath.Join(b.out, name)
	if b.err != nil {
		return binary
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, pkg)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		b.err = fmt.Errorf("building %s: %w\n%s", name, err, output)
		return binary
	}
	b.say("built %s", name)
	return binary
}
