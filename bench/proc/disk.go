package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Disk is the block device that a folder lies on.
type Disk struct{ stat string }

// DiskOf finds it. ok is false if the folder is on no block device (as on tmpfs): then flushes cannot be counted.
func DiskOf(folder string) (disk Disk, ok bool, err error) {
	var st syscall.Stat_t
	if err := syscall.Stat(folder, &st); err != nil {
		return Disk{}, false, fmt.Errorf("stat %s: %w", folder, err)
	}
	major, minor := st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&0xfff00
	device, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
	if err != nil {
		return Disk{}, false, nil
	}
	if _, err := os.Stat(filepath.Join(device, "partition")); err == nil {
		device = filepath.Dir(device) // the kernel counts flushes of the whole device only
	}
	disk = Disk{stat: filepath.Join(device, "stat")}
	if _, err := disk.Flushes(); err != nil {
		return Disk{}, false, nil
	}
	return disk, true, nil
}

// Flushes is how many flush requests the device has completed, whoever asked. Every sync that reaches the device is
// one; syncs that come together may share one.
func (d Disk) Flushes() (uint64, error) {
	const column = 15 // Documentation/block/stat.rst: since Linux 5.5
	data, err := os.ReadFile(d.stat)
	if err != nil {
		return 0, err
	}
	columns := strings.Fields(string(data))
	if len(columns) <= column {
		return 0, fmt.Errorf("%s does not count flushes", d.stat)
	}
	return strconv.ParseUint(columns[column], 10, 64)
}

// Probe measures how fast the disk syncs: a page is overwritten and synced, again and again.
type Probe struct {
	file *os.File
	page []byte
}

// probePages is the length of the probe's file: overwriting in turn, so that no metadata changes and fdatasync has
// the same little to do each time.
const probePages = 256

// NewProbe makes the probe's file.
func NewProbe(path string) (*Probe, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	p := &Probe{file: file, page: make([]byte, 4096)}
	for i := range p.page {
		p.page[i] = byte(i * 31)
	}
	for range probePages {
		if _, err := file.Write(p.page); err != nil {
			return nil, err
		}
	}
	return p, file.Sync()
}

// Run probes for about d and returns the median of one write and sync.
func (p *Probe) Run(d time.Duration) (time.Duration, error) {
	var took []time.Duration
	for began := time.Now(); len(took) == 0 || time.Since(began) < d; {
		at := time.Now()
		if _, err := p.file.WriteAt(p.page, int64(len(took)%probePages*len(p.page))); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(p.file.Fd())); err != nil {
			return 0, fmt.Errorf("fdatasync: %w", err)
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// Close closes the file; it stays where it is.
func (p *Probe) Close() error { return p.file.Close() }
