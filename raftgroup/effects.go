package raftgroup

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// A Loop is stepped: Events in, Effects out. This file is the whole of what passes between a Loop and the
// shell (or the simulator) around it. The driver's duties are numbered at Effects.

// ProposalID names a proposal in the whole cluster: it is stored in the entry, so that whoever applies the entry
// knows for which waiter, if any, it is.
type ProposalID struct {
	Node base.NodeID
	Seq  uint64 // unique over all incarnations of the node: incarnation in the upper 24 bits, counter below
}

// ReadID names a waiting linearizable read on this node.
type ReadID uint64

// Events is everything that happened to a Loop's ranges since its last step. The Loop does not keep the slices,
// but does keep what they point to (messages, data).
type Events struct {
	Messages  []Message
	Latches   []Latch
	Proposals []Proposal
	Reads     []Read
	Durable   []Durable
	Applied   []Applied
	Admin     []Admin
	// Promised tells of changes of what this node promises to others, Supported of the nodes whose support for this one
	// began, or began under a new token, and Lost of those whose support ran out.
	Promised        []Promised
	Supported, Lost []base.NodeID
	// Unreachable are nodes that the transport gave up for now.
	Unreachable []base.NodeID
}

// Message is one message between two replicas of a range: of Raft, unless Fort or TooOld is set.
type Message struct {
	Range                  base.RangeID
	FromNode, ToNode       base.NodeID
	FromReplica, ToReplica base.ReplicaID
	Raft                   *raftpb.Message
	// TooOld, if not 0, stands instead of Raft: the receiving replica was removed from its range, ids below this
	// are dead. The receiver removes itself and keeps the number as its tombstone.
	TooOld base.ReplicaID
	// Fort, if not nil, is about the lease and stands instead of Raft.
	Fort *FortMessage
}

// Proposal asks for a command to be put into a range's log.
type Proposal struct {
	Range base.RangeID
	ID    ProposalID
	Data  []byte // the command, encoded; the Loop puts the ProposalID before it
	// Change, if set, makes this a membership change: the entry is a Raft conf change that carries Data.
	Change *raftpb.ConfChangeV2
	// Latch, if set, is the latch through which it is proposed: as long as that one holds the range, and as its end.
	Latch *LatchID
	// Term, if not 0, is the one that it belongs to: a leader of another refuses it. What a leader decided from what only it knows
	// must not be carried out by its successor, nor by itself when it leads again.
	Term uint64
}

// LatchID names a latch in the whole cluster. One that began earlier goes before a later one where two cannot both be had;
// nothing else rests on the time. Try is another latch of the same reader.
type LatchID struct {
	Began int64 // microseconds of the reader's wall clock
	Node  base.NodeID
	Seq   uint64 // the reader, unique on its node
	Try   uint64
}

// Latch asks for a range to stay as it is (latch.go), or ends that.
type Latch struct {
	Range  base.RangeID
	ID     LatchID
	Waiter ReadID // who is told; with End: 0 for all that the reader has of the range
	End    bool   // let it go
}

// Read asks when the state of the local replica will be new enough to answer a linearizable read.
type Read struct {
	Range base.RangeID
	ID    ReadID
}

// Durable says that everything in the Appends effect with this sequence number is on disk.
type Durable struct{ Seq uint64 }

// Applied says that a range's committed entries up to Index were applied, and are visible to readers.
type Applied struct {
	Range base.RangeID
	Index uint64
	// Descriptor is set if it changed: by a conf change that took effect, or by an installed snapshot.
	Descriptor *metapb.RangeDescriptor
	// Changes are the conf changes that took effect, in order. One that was refused (a stale generation) is not
	// among them.
	Changes []*raftpb.ConfChangeV2
	// Removed: the descriptor no longer lists this replica.
	Removed bool
}

// Admin is one request to a range from its own node. Exactly one field besides Range is set.
type Admin struct {
	Range base.RangeID
	// Start brings a replica that the LogStore knows into the Loop (at the node's start, and after bootstrap wrote it).
	Start bool
	// Born brings a replica in that the store holds since its range was cut off another here. An empty one that a leader's
	// word has made already gives way to it. With Campaign it stands at once: this node leads the other.
	Born bool
	// Absorbed ends a replica whose range another one has taken over here.
	Absorbed *Absorbed
	// Received is a MsgSnap whose data has been received whole; it is stepped only now. Token names the staged data
	// and comes back in the Append effect that installs it, or in DropStaged if Raft does not want it.
	Received *ReceivedSnapshot
	// Sent reports how a SendSnapshot effect ended.
	Sent *SnapshotSent
	// Transfer hands leadership to a replica.
	Transfer base.ReplicaID
	// Campaign asks for an election now: used at bootstrap, where the only replica need not wait for its timer.
	Campaign bool
	// Warm has the replica not go cold for as long as if something had happened to it, and wakes nothing that rests. A cold one is
	// built again: what its leader alone knows, such as its lease, can be asked for.
	Warm bool
}

// ReceivedSnapshot is a MsgSnap with the token of its staged data.
type ReceivedSnapshot struct {
	Message Message
	Token   string
}

// Absorbed is a range that was taken over, as it was last, and the tombstone that it has.
type Absorbed struct {
	Descriptor *metapb.RangeDescriptor
	Tombstone  base.ReplicaID
}

// SnapshotSent ends a SendSnapshot effect.
type SnapshotSent struct {
	To base.ReplicaID
	OK bool
}

// Effects is what a step wants done. The slices and what they point to are the driver's until the next call of
// Step. Its duties:
//
//  1. Write Appends, in order, as one atomic batch; start the sync; hand the step's Seq back in Durable when it is
//     on disk. Batches become durable in the order of their Seq. The batch must be readable through the LogStore
//     before the next Step. Nothing may be done about an Append with Snapshot or Destroy before it is durable.
//     Before an Append with Snapshot or Destroy is written, the range's Applies under way are finished. After an install
//     the driver reports Applied, with the snapshot's index and the new descriptor, before the Durable of the batch that
//     it was in. After a Destroy it reports nothing more of the old replica: a new one may have taken its place.
//  2. Send Messages at any time after the call; they do not speak of anything that is not durable yet.
//  3. Apply Applies in order through the StateMachine, and hand back an Applied for each.
//  4. Answer ReadsReady, Latched and Failed to their waiters.
//  5. Start SendSnapshots; report each one's end with Admin.Sent.
//  6. Call Step again when there are events, or at Wake at the latest.
//  7. Show Gates and Commits to readers before Messages are sent: what a message does may end a lease.
type Effects struct {
	Seq          uint64 // of Appends; 0 if there are none
	Appends      []Append
	Messages     []Message
	Applies      []Apply
	ReadsReady   []ReadReady
	Latched      []Latched
	Failed       []Failed
	SendSnapshot []SendSnapshot
	DropStaged   []string // tokens of received snapshots that Raft did not want
	Changes      []StateChange
	Gates        []GateChange
	Cold         []base.RangeID // their groups were dropped: nothing happened to them for long
	Commits      []Commit
	Wake         base.Instant
	// Leaders is how many of the loop's replicas lead, Awake how many of these do not rest.
	Leaders, Awake int
}

// GateChange shows readers a leader's lease, or takes it away: a nil Gate.
type GateChange struct {
	Range base.RangeID
	Gate  *Gate
}

// Commit says up to where the log of a range with a Gate is committed. A follower may apply that, and show it to its
// readers, as soon as the step's messages have reached it: who reads under the lease must have applied it too.
type Commit struct {
	Range base.RangeID
	Index uint64
}

// Append is what one range wants to be durable, in the order of the fields.
type Append struct {
	Range     base.RangeID
	ReplicaID base.ReplicaID // written whenever it is set: the first write of a replica's life
	// Snapshot, if not nil, is installed: the staged data named by Token, the cleared log, the truncated state and
	// HardState become durable as one. Entries is empty then.
	Snapshot *raftpb.SnapshotMetadata
	Token    string
	// HardState, if not nil, is the new one: of a new term or vote. Where the log is committed is written beside them only.
	HardState *raftpb.HardState
	// Entries are appended. What the log held from Entries[0].Index on is deleted up to OldLast.
	Entries []*raftpb.Entry
	OldLast uint64
	// Truncate, if not nil, drops the log's entries up to and with Index, and records (Index, Term).
	Truncate *TruncatedState
	// Destroy, if not 0, deletes everything of the replica and leaves this number as its tombstone: replicas of the
	// range with a lower id may never exist on this node again.
	Destroy base.ReplicaID
	// Span of the destroyed or replaced replica, nil if it never had data.
	Descriptor *metapb.RangeDescriptor
}

// TruncatedState says where the log begins: at Index + 1.
type TruncatedState struct{ Index, Term uint64 }

// Apply hands committed entries to the state machine.
type Apply struct {
	Range   base.RangeID
	Entries []*raftpb.Entry
}

// ReadReady: the local replica has applied everything that a linearizable read must see; or Err says that it
// cannot be known (try again, elsewhere perhaps).
type ReadReady struct {
	ID  ReadID
	Err error
}

// Latched ends the wait for a latch: it holds the range, in the state that the replica shows to readers now; or Err says that it
// does not.
type Latched struct {
	Range  base.RangeID
	ID     LatchID
	Waiter ReadID
	Err    error
}

// Failed ends a proposal that will not be applied through this Loop: Err is *base.NotLeader or *base.Throttled if it
// certainly never will be, *base.Ambiguous if that is not known.
type Failed struct {
	ID  ProposalID
	Err error
}

// SendSnapshot asks for the range's present state to be sent. The driver takes an engine snapshot at or after the
// message's index and corrects the metadata in the message to what it took.
type SendSnapshot struct{ Message Message }

// StateChange tells observers of a new role, term, leader or descriptor of a local replica.
type StateChange struct {
	Range   base.RangeID
	Replica base.ReplicaID
	Role    Role
	Term    uint64
	Leader  base.ReplicaID // 0: none known
	// LeaderNode is Leader's node, 0 if not known.
	LeaderNode base.NodeID
	Descriptor *metapb.RangeDescriptor
	Destroyed  bool
	Thawed     bool   // the replica was cold, and is what it was before
	Reason     string // why, for the event log
}

// Role is a replica's Raft role.
type Role uint8

// The roles.
const (
	Follower Role = iota
	Candidate
	Leader
	Learner
)

// Status is a replica as it is now: for people, for replica changes, for tests.
type Status struct {
	Range       base.RangeID
	Replica     base.ReplicaID
	Descriptor  *metapb.RangeDescriptor
	Role        Role
	Term        uint64
	Leader      base.ReplicaID
	LeaderNode  base.NodeID
	Commit      uint64
	Applied     uint64
	First, Last uint64
	LogBytes    uint64
	Progress    []Progress // on the leader only, ordered by replica
	Resting     bool       // a leader that is neither ticked nor sends anything
	// LeaseLeft is how long the leader's lease lasts if nothing prolongs it, 0 if it has none; LeaseForEver says that the
	// leader alone decides. Supporters are the nodes whose replicas hold their votes back for it now.
	LeaseLeft    time.Duration
	LeaseForEver bool
	Supporters   []base.NodeID
	// Fortified, on a follower, is the node to whose replica it promised its votes; 0: none.
	Fortified base.NodeID
}

// Progress is what a leader knows of one replica.
type Progress struct {
	Replica base.ReplicaID
	Match   uint64
	State   string // probe, replicate, snapshot
	Recent  bool   // heard of within the last election time-out
}

// LogStore reads what earlier Appends wrote. It is called from Step only.
type LogStore interface {
	// Load returns what the store holds of a range's replica on this node. A range of which it holds nothing gives
	// the zero value.
	Load(base.RangeID) (Loaded, error)
	// Entries returns entries [lo, hi), cut so that their sizes do not sum to more than maxBytes, but at least one.
	// terms gives the term of each of these indexes (a cache may be keyed by range, term and index).
	Entries(id base.RangeID, lo, hi, maxBytes uint64, terms Terms) ([]*raftpb.Entry, error)
	// Descriptor returns what Load does as Descriptor.
	Descriptor(base.RangeID) (*metapb.RangeDescriptor, error)
	// Term returns the term of one entry that is in the log; it is called at Load time only.
	Term(id base.RangeID, index uint64) (uint64, error)
}

// Loaded is a replica as the store holds it.
type Loaded struct {
	ReplicaID  base.ReplicaID // 0: no replica here
	Tombstone  base.ReplicaID // ids below this are dead; 0: none
	HardState  *raftpb.HardState
	Truncated  TruncatedState
	LastIndex  uint64 // Truncated.Index if the log is empty
	Applied    uint64
	Descriptor *metapb.RangeDescriptor // nil until a snapshot or bootstrap wrote it

	terms *Terms // if they are known: of a replica that was cold
}

// StateMachine applies committed entries. Drivers call it; a Loop never does.
type StateMachine interface {
	// Apply applies entries of one range, in order, and makes their effects and the applied index visible as one.
	Apply(Apply) (Applied, error)
}

// Sender takes messages for other nodes. Drivers use it; it may drop what it is given.
type Sender interface {
	Send(to base.NodeID, messages []Message)
}
