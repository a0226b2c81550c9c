package backup

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/archivepb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/archive"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/node/keyspace"
	"github.com/cairndb/cairn/node/store"
)

// RestoreConfig says what is made of which file.
type RestoreConfig struct {
	File string
	Dir  string // of the store: not there yet, or empty
	// BumpRevision has revisions go on that much higher than where the file ends, so that none that a client of the first cluster has
	// seen after the snapshot is used again for something else; MarkCompacted has all before be compacted, so that whoever watches from
	// such a revision is told that it missed something. As etcdutl's.
	BumpRevision  int64
	MarkCompacted bool
	UnixMicros    func() int64 // the wall clock; nil: the machine's
	Logger        *slog.Logger
}

// EnsureDefaults fills what was left open.
func (c *RestoreConfig) EnsureDefaults() {
	if c.UnixMicros == nil {
		c.UnixMicros = func() int64 { return time.Now().UnixMicro() }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate returns every problem at once.
func (c *RestoreConfig) Validate() error {
	var errs []error
	if c.File == "" || c.Dir == "" {
		errs = append(errs, errors.New("a file and the directory of a store are needed"))
	}
	if c.BumpRevision < 0 || c.BumpRevision > math.MaxInt64/2 {
		errs = append(errs, fmt.Errorf("revisions cannot be bumped by %d", c.BumpRevision))
	}
	if c.BumpRevision > 0 && !c.MarkCompacted {
		errs = append(errs, errors.New("revisions are only bumped with all before marked as compacted: a watch would go over the gap and not know"))
	}
	return errors.Join(errs...)
}

// Restored is what was made.
type Restored struct {
	ClusterID uint64
	File      *Contents
}

// Restore makes the store of a new cluster's first node. The file is read twice: nothing is made of one that is damaged. A crash leaves
// no store, but a folder beside where it was to be.
func Restore(cfg RestoreConfig) (*Restored, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := mayBeMade(cfg.Dir); err != nil {
		return nil, err
	}
	contents, err := Inspect(cfg.File)
	if err != nil {
		return nil, err
	}
	work := filepath.Clean(cfg.Dir) + ".restoring"
	if err := os.MkdirAll(filepath.Dir(work), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(work, 0o755); errors.Is(err, fs.ErrExist) {
		return nil, &base.Refused{For: base.RefusedState, Reason: work + " is there: a restore runs, or was broken off", Instead: "if none runs, remove it"}
	} else if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work) // nothing is there if all went well
	id, err := fill(&cfg, work, contents)
	if err != nil {
		return nil, err
	}
	return &Restored{ClusterID: id, File: contents}, Place(work, cfg.Dir)
}

// mayBeMade refuses a folder in which something is.
func mayBeMade(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = &base.Refused{For: base.RefusedState, Reason: dir + " is not empty: it may be the store of a node", Instead: "give a directory that is not there yet"}
	}
	return err
}

// Place gives what is finished its name, durably. It may replace a file, or an empty folder.
func Place(work, path string) error {
	if err := os.Rename(work, filepath.Clean(path)); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return err
	}
	err = parent.Sync()
	if cerr := parent.Close(); err == nil {
		err = cerr
	}
	return err
}

// fill writes the store. What makes it one, its identity, is written last.
func fill(cfg *RestoreConfig, dir string, contents *Contents) (cluster uint64, err error) {
	eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: dir, CacheBytes: base.BlockCacheBytes, Logger: cfg.Logger, OnFatal: func(error) {}})
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := eng.Close(); err == nil {
			err = cerr
		}
	}()
	id, _, err := store.OpenIdentity(eng)
	if err != nil {
		return 0, err
	}
	id.NodeId, id.ClusterCreatedUnixMicros = 1, contents.Beginning.ClusterCreatedUnixMicros
	for id.ClusterId == 0 {
		var b [8]byte
		rand.Read(b[:]) // never fails: crypto/rand
		id.ClusterId = binary.BigEndian.Uint64(b[:])
	}
	r := &restorer{cfg: cfg, eng: eng, id: id, lastID: base.FirstFreeID - 1}
	f, err := os.Open(cfg.File)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := archive.Read(f, &archive.Visitor{Keyspace: r.keyspace, Leases: r.leases, Version: r.version, KeyspaceEnd: r.endKeyspace}); err != nil {
		return 0, err
	}
	return id.ClusterId, r.finish()
}

// restorer writes what a file holds.
type restorer struct {
	cfg    *RestoreConfig
	eng    engine.Engine
	id     *metapb.StoreIdentity
	lastID uint64 // the highest of a keyspace

	space  base.KeyspaceID
	begun  *archivepb.Keyspace
	grants int64 // the highest number of a grant in it
	batch  engine.Batch
	key    []byte // scratch

	met       bool // a key was met
	last      []byte
	lastLease int64 // that was looked up
	ranges    []store.NewRange
	made      []*metapb.KeyspaceRecord
}

func (r *restorer) keyspace(k *archivepb.Keyspace) error {
	r.begun, r.space = k, base.KeyspaceDefault
	r.grants, r.met, r.lastLease = 0, false, 0
	if k.Name == base.KeyspaceDefault.String() {
		return nil
	}
	if err := keyspace.CheckName(k.Name); err != nil {
		return err
	}
	r.space = base.KeyspaceID(k.KeyspaceId)
	if err := r.checkID(k); err != nil {
		return err
	}
	r.made = append(r.made, &metapb.KeyspaceRecord{
		KeyspaceId: uint64(r.space), Name: k.Name, Single: k.Single, State: metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE,
		First: store.FirstDescriptor(base.RangeID(base.FirstFreeID+len(r.made)), r.space, base.NodeID(r.id.NodeId)), CreatedUnixMicros: r.cfg.UnixMicros(),
	})
	return nil
}

// checkID has keyspaces keep their ids, by which those who hash their data tell them apart.
func (r *restorer) checkID(k *archivepb.Keyspace) error {
	number := r.space.Number()
	if number < base.FirstFreeID || r.space.Single() != k.Single || slices.ContainsFunc(r.made, func(m *metapb.KeyspaceRecord) bool { return m.KeyspaceId == k.KeyspaceId }) {
		return fmt.Errorf("the keyspace %s cannot have the id %x", k.Name, k.KeyspaceId)
	}
	r.lastID = max(r.lastID, number)
	return nil
}

// rangeID is the one range of the keyspace.
func (r *restorer) rangeID() base.RangeID {
	if r.space == base.KeyspaceDefault {
		return base.RangeDefault
	}
	return base.RangeID(base.FirstFreeID - 1 + len(r.made))
}

// leases writes leases that live in the keyspace's one range, where they may hold keys anywhere.
func (r *restorer) leases(l *archivepb.Leases) error {
	for _, rec := range l.Leases {
		rec.Spans = nil
		if err := r.lease(rec); err != nil {
			return err
		}
	}
	return r.commit() // the keys that follow ask for them
}

func (r *restorer) lease(rec *kvpb.LeaseRecord) error {
	raw, err := proto.Marshal(rec)
	if err != nil {
		return err
	}
	r.grants = max(r.grants, rec.GrantedRevision)
	return r.set(keys.RangeLease(r.rangeID(), rec.Id), raw)
}

func (r *restorer) version(v *archive.Version, rec *eval.Record) error {
	newest := !r.met || !bytes.Equal(v.Key, r.last)
	if newest {
		r.met, r.last = true, append(r.last[:0], v.Key...)
	}
	if newest && rec.Lease != 0 {
		if err := r.leased(rec.Lease, v.Key); err != nil {
			return err
		}
	}
	r.key = keys.Data(r.key[:0], r.space, v.Key, v.Revision)
	return r.set(r.key, v.Record)
}

// leased notes that a lease holds a key. One that is not in the file was revoked since the keyspace's revision: the new cluster ends it, and
// with it its keys.
func (r *restorer) leased(id int64, key []byte) error {
	if err := r.set(keys.RangeLeaseKey(r.rangeID(), id, key), nil); err != nil {
		return err
	}
	if r.lastLease == id {
		return nil
	}
	known, err := eval.ReadLease(r.eng, r.rangeID(), id)
	if err != nil {
		return err
	}
	if r.lastLease = id; known != nil {
		return nil
	}
	if err := r.lease(&kvpb.LeaseRecord{Id: id, Ttl: 1, GrantedRevision: r.grants + 1, Ending: true}); err != nil {
		return err
	}
	return r.commit()
}

// restoreBatchBytes bounds a batch: memory, and what one write of the engine's takes.
const restoreBatchBytes = 1 << 20

func (r *restorer) set(key, value []byte) error {
	if r.batch == nil {
		r.batch = r.eng.NewBatch()
	}
	if err := r.batch.Set(key, value); err != nil || r.batch.Len() < restoreBatchBytes {
		return err
	}
	return r.commit()
}

func (r *restorer) commit() error {
	b := r.batch
	if r.batch = nil; b == nil {
		return nil
	}
	defer b.Close()
	return b.CommitNoSync()
}

func (r *restorer) endKeyspace(e *archivepb.KeyspaceEnd) error {
	c := eval.Counters{Revision: base.Revision(r.begun.Revision), Compacted: base.Revision(e.Compacted)}
	if r.cfg.BumpRevision > 0 {
		c.Revision += base.Revision(r.cfg.BumpRevision)
		if r.space.Splits() { // there time says how far the first cluster may have come
			c.Revision = max(base.Revision(r.begun.Revision), base.Revision(r.cfg.UnixMicros()-r.id.ClusterCreatedUnixMicros))
		}
	}
	if r.cfg.MarkCompacted {
		c.Compacted = c.Revision
	}
	d := store.FirstDescriptor(r.rangeID(), r.space, base.NodeID(r.id.NodeId))
	r.ranges = append(r.ranges, store.NewRange{Descriptor: d, Counters: c, Grants: r.grants})
	return r.commit()
}

// finish writes the records of the keyspaces, and what makes it a store.
func (r *restorer) finish() error {
	sys, err := r.records()
	if err != nil {
		return err
	}
	node := base.NodeID(r.id.NodeId)
	for _, d := range store.FirstDescriptors(node) {
		switch c := eval.FirstCounters(); base.RangeID(d.RangeId) {
		case base.RangeDefault: // it was in the file
		case base.RangeSys:
			r.ranges = append(r.ranges, store.NewRange{Descriptor: d, Counters: sys})
		default:
			r.ranges = append(r.ranges, store.NewRange{Descriptor: d, Counters: c})
		}
	}
	return store.BootstrapRanges(r.eng, r.id, nil, r.ranges)
}

// records writes the keyspaces' records into `sys`, and returns its counters then.
func (r *restorer) records() (eval.Counters, error) {
	env := eval.Env{Keyspace: base.KeyspaceSys, Counters: eval.FirstCounters(), NowMicros: r.cfg.UnixMicros() - r.id.ClusterCreatedUnixMicros}
	b := r.eng.NewIndexedBatch()
	defer b.Close()
	pass := eval.NewPass(b)
	recs, err := keyspace.Records(r.made, r.lastID)
	if err != nil {
		return env.Counters, err
	}
	for _, rec := range recs {
		if _, err := pass.Put(&env, rec.Key, rec.Value); err != nil {
			return env.Counters, errors.Join(err, pass.Close())
		}
	}
	if err := pass.Close(); err != nil {
		return env.Counters, err
	}
	return env.Counters, b.CommitNoSync()
}
