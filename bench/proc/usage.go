// Package proc reads what the kernel counts: of processes (CPU, bytes written, memory) and of a disk (flushes); and it
// probes how fast the disk syncs now. It treats both sides of a comparison alike, because it asks neither of them.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc: USER_HZ, 100 on every architecture that Go runs Linux on.
const clockTick = 10 * time.Millisecond

// Usage is what one process, or several together, have used.
type Usage struct {
	CPU        time.Duration // user and system, since the start
	WriteBytes uint64        // sent to the disk since the start, in whole pages (write_bytes of /proc/PID/io)
	RSS        uint64        // resident bytes now
	Anon       uint64        // of these, not backed by a file
	Peak       uint64        // the most that was ever resident
}

// Add returns both together.
func (u Usage) Add(v Usage) Usage {
	return Usage{u.CPU + v.CPU, u.WriteBytes + v.WriteBytes, u.RSS + v.RSS, u.Anon + v.Anon, u.Peak + v.Peak}
}

// Of reads a process's usage.
func Of(pid int) (Usage, error) {
	cpu, err := cpuOf(pid)
	if err != nil {
		return Usage{}, err
	}
	io, err := fields(pid, "io")
	if err != nil {
		return Usage{}, err
	}
	status, err := fields(pid, "status")
	if err != nil {
		return Usage{}, err
	}
	const kB = 1024
	return Usage{
		CPU: cpu, WriteBytes: io["write_bytes"],
		RSS: status["VmRSS"] * kB, Anon: status["RssAnon"] * kB, Peak: status["VmHWM"] * kB,
	}, nil
}

// cpuOf is utime + stime: fields 14 and 15 of /proc/PID/stat, counted from behind the command's name, which may hold
// blanks and parentheses.
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(data[max(bytes.LastIndexByte(data, ')'), 0):], []byte(") "))
	columns := strings.Fields(string(rest)) // the first is field 3
	if !found || len(columns) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: not understood: %q", pid, data)
	}
	var ticks uint64
	for _, column := range columns[11:13] {
		n, err := strconv.ParseUint(column, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// Busy is the CPU that the whole machine has used since its start, and what its host has taken from it: all columns
// of the first line of /proc/stat but idle and iowait (and guest, which user holds).
func Busy() (time.Duration, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	columns := strings.Fields(line)
	if len(columns) < 9 || columns[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat: not understood: %q", line)
	}
	var ticks uint64
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user, nice, system, irq, softirq, steal
		n, err := strconv.ParseUint(columns[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// fields reads the lines "name: number" of a file of /proc/PID; what is not a number is left out.
func fields(pid int, file string) (map[string]uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return nil, err
	}
	found := map[string]uint64{}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if columns := strings.Fields(rest); len(columns) > 0 {
			if n, err := strconv.ParseUint(columns[0], 10, 64); err == nil {
				found[name] = n
			}
		}
	}
	return found, nil
}
