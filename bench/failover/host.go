package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cairndb/cairn/bench/peer"
)

// host is three machines on this one: a network namespace and a file system of its own for each, so that one of them can
// be cut off, or its disk be stopped, whatever runs there. It needs root.
type host struct {
	name    string
	octet   int
	folder  string
	mounted []string
}

const (
	hostCommand = 20 * time.Second
	diskBytes   = 1 << 30 // sparse
)

func newHost(folder string) (*host, error) {
	pid := os.Getpid()
	h := &host{name: "fo" + strconv.Itoa(pid), octet: pid % 250, folder: folder}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	commands := [][]string{
		{"ip", "link", "add", h.name + "b", "type", "bridge"},
		{"ip", "addr", "add", h.address(253) + "/24", "dev", h.name + "b"},
		{"ip", "link", "set", h.name + "b", "up"},
	}
	for i := range peer.Nodes {
		ns, veth := h.namespace(i), h.link(i)
		commands = append(commands,
			[]string{"ip", "netns", "add", ns},
			[]string{"ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", ns},
			[]string{"ip", "link", "set", veth, "master", h.name + "b", "up"},
			[]string{"ip", "-n", ns, "addr", "add", h.address(i) + "/24", "dev", "eth0"},
			[]string{"ip", "-n", ns, "link", "set", "lo", "up"},
			[]string{"ip", "-n", ns, "link", "set", "eth0", "up"},
		)
	}
	for _, c := range commands {
		if err := run(c...); err != nil {
			return h, err
		}
	}
	return h, nil
}

func (h *host) namespace(i int) string { return h.name + "n" + strconv.Itoa(i+1) }
func (h *host) link(i int) string      { return h.name + "v" + strconv.Itoa(i+1) }
func (h *host) address(i int) string   { return fmt.Sprintf("10.214.%d.%d", h.octet, i+1) }
func (h *host) disk(i int) string      { return filepath.Join(h.folder, "n"+strconv.Itoa(i+1)) }

// layout gives each node an empty disk.
func (h *host) layout() (l peer.Layout, err error) {
	if err := h.unmount(); err != nil {
		return l, err
	}
	for i := range peer.Nodes {
		image := h.disk(i) + ".img"
		if err := os.RemoveAll(image); err != nil {
			return l, err
		}
		f, err := os.Create(image)
		if err == nil {
			err = errors.Join(f.Truncate(diskBytes), f.Close())
		}
		if err == nil {
			err = errors.Join(os.MkdirAll(h.disk(i), 0o755), run("mkfs.ext4", "-q", image))
		}
		if err == nil {
			err = run("mount", "-o", "loop", image, h.disk(i))
		}
		if err != nil {
			return l, err
		}
		h.mounted = append(h.mounted, h.disk(i))
		l.Client[i], l.Peer[i] = h.address(i)+":7400", h.address(i)+":7401"
		l.Store[i] = filepath.Join(h.disk(i), "store")
	}
	return l, nil
}

func (h *host) unmount() (err error) {
	for _, m := range h.mounted {
		_ = run("fsfreeze", "-u", m) // it fails unless the disk is stopped
		err = errors.Join(err, run("umount", m))
	}
	h.mounted = nil
	return err
}

func (h *host) close() error {
	err := h.unmount()
	for i := range peer.Nodes {
		err = errors.Join(err, run("ip", "netns", "del", h.namespace(i)))
	}
	return errors.Join(err, run("ip", "link", "del", h.name+"b"), os.RemoveAll(h.folder))
}

// run runs a command to its end.
func run(command ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), hostCommand)
	defer cancel()
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
