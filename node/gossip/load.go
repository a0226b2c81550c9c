package gossip

import (
	"math"

	"github.com/cairndb/cairn/api/metapb"
)

// far says whether two loads are so far apart that others should know: more than an eighth, and more than what is always there.
func far(a, b *metapb.NodeLoad) bool {
	if (a == nil) != (b == nil) {
		return true
	}
	apart := func(x, y, noise float64) bool {
		d := math.Abs(x - y)
		return d > noise && d > max(x, y)/8
	}
	const mib, millisecond = 1 << 20, 1000
	return a.GetReplicas() != b.GetReplicas() || a.GetLeaders() != b.GetLeaders() || a.GetDiskBytes() != b.GetDiskBytes() ||
		a.GetSnapshotsSending() != b.GetSnapshotsSending() || a.GetSnapshotsReceiving() != b.GetSnapshotsReceiving() ||
		apart(float64(a.GetBytes()), float64(b.GetBytes()), mib) ||
		apart(float64(a.GetDiskUsed()), float64(b.GetDiskUsed()), 64*mib) ||
		apart(a.GetRequestsPerSecond(), b.GetRequestsPerSecond(), 10) ||
		apart(float64(a.GetCpuPermille()), float64(b.GetCpuPermille()), 50) ||
		apart(float64(a.GetSyncMicros()), float64(b.GetSyncMicros()), 5*millisecond) ||
		apart(float64(a.GetPutMicros()), float64(b.GetPutMicros()), 5*millisecond) ||
		apart(float64(a.GetPutNormalMicros()), float64(b.GetPutNormalMicros()), 5*millisecond) ||
		apart(float64(a.GetLateMicros()), float64(b.GetLateMicros()), 20*millisecond) ||
		apart(float64(a.GetSnapshotBytesPerSecond()), float64(b.GetSnapshotBytesPerSecond()), mib)
}
