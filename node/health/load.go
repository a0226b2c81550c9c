package health

import (
	"math"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/node/latency"
	"github.com/cairndb/cairn/node/store"
)

// Gauges measures how busy a node is. It belongs to one goroutine, which reads it about once in base.HeartbeatInterval; what costs
// more than a few microseconds is read less often.
type Gauges struct {
	cfg   GaugesConfig
	syncs *latency.Window
	puts  *latency.Window

	at        base.Instant // of the last reading
	cpu       time.Duration
	snapshots uint64       // bytes sent and received
	lates     [lates]int64 // microseconds, of the last readings
	next      int          // of lates
	normal    normal
	sized     base.Instant  // when the sizes were read; 0: never
	bytes     uint64        // of the replicas' data
	disk      unix.Statfs_t // of the store's file system
}

// lates is how many readings a pause counts in, a few seconds.
const lates = 5

// GaugesConfig is what Gauges reads.
type GaugesConfig struct {
	Node     base.NodeID
	Store    *store.Store
	Engine   engine.Engine
	Puts     *latency.Histogram
	StoreDir string
}

// NewGauges begins to measure.
func NewGauges(cfg GaugesConfig) *Gauges {
	return &Gauges{cfg: cfg, syncs: latency.NewWindow(cfg.Store.Syncs()), puts: latency.NewWindow(cfg.Puts), at: cfg.Store.Now(), cpu: cpuTime()}
}

// Load reads everything. late is how late the caller's own timer was.
func (g *Gauges) Load(late time.Duration) *metapb.NodeLoad {
	now := g.cfg.Store.Now()
	elapsed := max(now.Sub(g.at), time.Millisecond)
	g.at = now
	leaders, _ := g.cfg.Store.Leaders()
	sn := g.cfg.Store.SnapshotStats()
	moved := sn.BytesSent + sn.BytesReceived
	l := &metapb.NodeLoad{
		Replicas: uint64(g.cfg.Store.Replicas()[g.cfg.Node]), Leaders: uint64(leaders), RequestsPerSecond: math.Round(g.cfg.Store.RequestRate()*10) / 10,
		SnapshotsSending: sn.Sending, SnapshotsReceiving: sn.Receiving, SnapshotBytesPerSecond: uint64(float64(moved-g.snapshots) / elapsed.Seconds()),
	}
	g.snapshots = moved
	cpu := cpuTime()
	l.CpuPermille = uint32(1000 * (cpu - g.cpu) / elapsed / time.Duration(runtime.NumCPU()))
	g.cpu = cpu

	g.lates[g.next] = late.Microseconds()
	g.next = (g.next + 1) % lates
	for _, us := range g.lates {
		l.LateMicros = max(l.LateMicros, us)
	}
	g.syncs.Look()
	g.puts.Look()
	sync, _ := g.syncs.P99()
	put, of := g.puts.P99()
	l.SyncMicros, l.PutMicros = sync.Microseconds(), put.Microseconds()
	if of > 0 && sn.Sending+sn.Receiving == 0 {
		g.normal.learn(float64(put.Microseconds()), elapsed)
	}
	l.PutNormalMicros = int64(g.normal.micros)
	g.readSizes(now)
	l.Bytes, l.DiskUsed, l.DiskBytes = g.bytes, (g.disk.Blocks-g.disk.Bfree)*uint64(g.disk.Bsize), g.disk.Blocks*uint64(g.disk.Bsize)
	return l
}

// readSizes asks the engine and the file system now and then. What cannot be read stays as it was: 0 is "not known".
func (g *Gauges) readSizes(now base.Instant) {
	if g.sized != 0 && now.Sub(g.sized) < base.LoadSizesInterval {
		return
	}
	g.sized = now
	all := engine.Span{Start: keys.KeyspaceSpan(0).Start, End: keys.KeyspaceSpan(math.MaxUint64).End}
	if n, err := g.cfg.Engine.Size(all); err == nil {
		g.bytes = n
	}
	var disk unix.Statfs_t
	if unix.Statfs(g.cfg.StoreDir, &disk) == nil {
		g.disk = disk
	}
}

// DiskBytes is how much the file system of a folder holds; 0: not known.
func DiskBytes(dir string) uint64 {
	var disk unix.Statfs_t
	if unix.Statfs(dir, &disk) != nil {
		return 0
	}
	return disk.Blocks * uint64(disk.Bsize)
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0 // it cannot fail for the process itself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
