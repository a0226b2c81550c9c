package jepsen

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Namespaces is a network namespace for each node, all joined by one bridge: what partitions need.
const Namespaces Capability = "namespaces"

// AllNemeses are all that this package knows, in the order of their families. A run without faults is part of every run
// and none of them.
func AllNemeses() []Nemesis {
	return slices.Concat(killNemeses(), pauseNemeses(), partitionNemeses(), linkNemeses(), clockNemeses(), diskNemeses(), membershipNemeses(), rangeNemeses())
}

// Missing says of each capability that this machine lacks why it does, found out by trying.
func Missing() map[Capability]string {
	missing := make(map[Capability]string)
	if err := tryNamespaces(); err != nil {
		missing[Namespaces] = err.Error()
	}
	if err := tryTap(); err != nil {
		missing[Tap] = err.Error()
	}
	return missing
}

// MissingOnLoopback is Missing for a cluster that is made without namespaces.
func MissingOnLoopback() map[Capability]string {
	const why = "the nodes are on the loopback interface"
	return map[Capability]string{Namespaces: why, Tap: why}
}

// tryNamespaces makes what a cluster needs, once and small, and removes it.
func tryNamespaces() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("no command ip (of iproute2)")
	}
	n := newNetwork("t")
	defer func() { err = errors.Join(err, n.remove()) }()
	if err := n.make(1); err != nil {
		return fmt.Errorf("a namespace could not be made: %s", strings.TrimSpace(err.Error()))
	}
	return nil
}
