package proc

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestUsageOfThisProcess(t *testing.T) {
	before, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if before.RSS == 0 || before.Anon == 0 || before.Anon > before.RSS || before.Peak < before.RSS {
		t.Errorf("memory makes no sense: %+v", before)
	}
	busyBefore, err := Busy()
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 5*clockTick; { // some ticks of work
	}
	busyAfter, err := Busy()
	if err != nil {
		t.Fatal(err)
	}
	if used := busyAfter - busyBefore; used <= 0 || used > time.Hour {
		t.Errorf("the machine used %v meanwhile", used)
	}
	after, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after.CPU - before.CPU; used <= 0 || used > time.Minute {
		t.Errorf("%v of CPU after %v of work", used, 5*clockTick)
	}
	if sum := before.Add(after); sum.CPU != before.CPU+after.CPU || sum.RSS != before.RSS+after.RSS {
		t.Errorf("the sum of %+v and %+v is not %+v", before, after, sum)
	}
}

func TestUsageOfNoProcess(t *testing.T) {
	if _, err := Of(1 << 30); err == nil {
		t.Error("a process that cannot exist has a usage")
	}
}

func TestProbeReachesTheDisk(t *testing.T) {
	folder := t.TempDir()
	probe, err := NewProbe(filepath.Join(folder, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := probe.Close(); err != nil {
			t.Error(err)
		}
	}()
	disk, ok, err := DiskOf(folder)
	if err != nil {
		t.Fatal(err)
	}
	var before uint64
	if ok {
		if before, err = disk.Flushes(); err != nil {
			t.Fatal(err)
		}
	}
	median, err := probe.Run(20 * time.Millisecond)
	if err != nil || median <= 0 {
		t.Fatalf("the median of a sync is %v, error %v", median, err)
	}
	if !ok {
		t.Skip("the folder is on no block device that counts flushes")
	}
	after, err := disk.Flushes()
	if err != nil {
		t.Fatal(err)
	}
	if after == before {
		t.Skip("the device has no volatile write cache: syncs need no flush")
	}
}
