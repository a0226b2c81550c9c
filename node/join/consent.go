package join

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
)

var errLostCandidacy = errors.New("this node has given its own consent to another candidate meanwhile")

// Consent answers a candidate that wants to found a cluster of which this node is to be part. See the package's
// comment for the rules; all that is said here was made durable before.
func (e *Entry) Consent(ctx context.Context, req *clusterpb.ConsentRequest) (*clusterpb.ConsentResponse, error) {
	if len(req.CandidateStoreUuid) != uuidLen {
		return nil, refusef("the candidate's store uuid has %d bytes, it should have %d",
			len(req.CandidateStoreUuid), uuidLen)
	}
	if err := CheckAddress(req.CandidateAddress); err != nil {
		return nil, refusef("the candidate's address: %v", err)
	}
	reason, former, err := e.decide(req, nil)
	if err == nil && former != nil {
		if reason = e.askRelease(ctx, former, req); reason == "" {
			// What was released may not be what is held by now; then the second decision says so.
			reason, former, err = e.decide(req, former)
			if former != nil {
				reason = "the consent changed while it was being released; ask again"
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return &clusterpb.ConsentResponse{Granted: reason == "", Reason: reason}, nil
}

// decide gives the consent (no reason), refuses it (a reason), or names the former candidate that must release
// this node first. `released` is a former candidate that did.
func (e *Entry) decide(req, released *clusterpb.ConsentRequest) (reason string, former *clusterpb.ConsentRequest, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if id := e.cfg.Store.Identity(); id.ClusterId != 0 {
		return fmt.Sprintf("%s is already part of cluster %x", e.cfg.Self.Address, id.ClusterId), nil, nil
	}
	held, err := e.cfg.Store.Consent()
	if err != nil {
		return "", nil, fmt.Errorf("join: reading the consent: %w", err)
	}
	switch {
	case held == nil:
	case sameCandidate(held, req):
		req = proto.CloneOf(req) // its address may be another by now
		req.Init = req.Init || held.Init
		if proto.Equal(held, req) {
			return "", nil, nil // given already
		}
	case !before(req, held):
		return fmt.Sprintf("%s has consented that %s makes the cluster", e.cfg.Self.Address, held.CandidateAddress), nil, nil
	case e.isSelf(held), released != nil && sameCandidate(held, released):
	default:
		return "", held, nil
	}
	if err := e.cfg.Store.SetConsent(req); err != nil {
		return "", nil, fmt.Errorf("join: writing the consent: %w", err)
	}
	e.changes++
	return "", nil, nil
}

// askRelease asks the candidate that this node had consented to whether it consents to the better one, and so
// can found no more. It returns why not.
func (e *Entry) askRelease(ctx context.Context, former, req *clusterpb.ConsentRequest) (reason string) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.ProbeTimeout)
	defer cancel()
	stuck := fmt.Sprintf("%s has consented that %s makes the cluster", e.cfg.Self.Address, former.CandidateAddress)
	wayOut := fmt.Sprintf("if it never comes back, delete the store directory of %s, which holds nothing yet, "+
		"and start it again", e.cfg.Self.Address)
	conn, err := e.cfg.Dial(former.CandidateAddress)
	if err != nil {
		return fmt.Sprintf("%s, which cannot be reached: %v: %s", stuck, err, wayOut)
	}
	defer func() { _ = conn.Close() }()
	id, err := identify(ctx, conn)
	if err != nil {
		return fmt.Sprintf("%s, which cannot be reached: %v: %s", stuck, err, wayOut)
	}
	if !bytes.Equal(id.StoreUuid, former.CandidateStoreUuid) {
		return fmt.Sprintf("%s, and another store is at that address now: %s", stuck, wayOut)
	}
	resp, err := clusterpb.NewClusterClient(conn).Consent(ctx, req)
	if err != nil {
		return fmt.Sprintf("%s, which does not answer: %v", stuck, fromWire(err))
	}
	if !resp.Granted {
		return fmt.Sprintf("%s, which does not give that up: %s", stuck, resp.Reason)
	}
	return ""
}

// foundExpected founds a cluster with the expected nodes if they are all there, and it is this node's part.
func (e *Entry) foundExpected(ctx context.Context, seen *survey) (waiting string, err error) {
	if n := len(seen.waiting) + 1; n < e.cfg.Expect {
		return seen.describe(fmt.Sprintf("%d of %d expected nodes are here", n, e.cfg.Expect)), nil
	}
	held, _, err := e.candidacy()
	if err != nil {
		return "", err
	}
	// A candidate that was one before goes on although a better one came: the better one may not have its nodes
	// together, and takes this one's consent when it has.
	if !e.isSelf(held) {
		e.remind(ctx, held, seen.waiting)
		if len(seen.waiting) > 0 && seen.waiting[0].id.Address < e.cfg.Self.Address {
			return "waiting for " + seen.waiting[0].id.Address + ", which is to make the cluster", nil
		}
	}
	reason, err := e.stand(ctx, &clusterpb.ConsentRequest{
		CandidateStoreUuid: e.uuid, CandidateAddress: e.cfg.Self.Address}, seen.waiting)
	if errors.Is(err, errLostCandidacy) {
		return err.Error(), nil
	}
	return reason, err
}

// remind tells the candidate that this node has consented to that it is one. Its own consent comes last if it had given
// that to another, who must release it first; if it was refused or crashed before, it would wait for a better one, which
// waits for it.
func (e *Entry) remind(ctx context.Context, held *clusterpb.ConsentRequest, waiting []*peer) {
	for _, p := range waiting {
		if held != nil && bytes.Equal(p.id.StoreUuid, held.CandidateStoreUuid) {
			_ = e.askConsent(ctx, p, held) // what it says to that, it says in its own log
		}
	}
}

// stand collects the consent of this node and of all the others, and founds the cluster with it.
func (e *Entry) stand(ctx context.Context, me *clusterpb.ConsentRequest, others []*peer) (refusal string, err error) {
	own, err := e.Consent(ctx, me)
	if err != nil || !own.Granted {
		return own.GetReason(), err
	}
	// An operator's word of before still counts: this node refuses whoever stands without one, so it must not stand
	// without it itself, or none of the candidates would ever get everybody's consent.
	me, changes, err := e.candidacy()
	if err != nil || !e.isSelf(me) {
		return errLostCandidacy.Error(), err
	}
	reasons := make([]string, len(others))
	var g errgroup.Group
	for i, p := range others {
		g.Go(func() error {
			reasons[i] = e.askConsent(ctx, p, me)
			return nil
		})
	}
	_ = g.Wait() // each reason stands for its own
	for _, r := range reasons {
		if r != "" {
			return r, nil
		}
	}
	_, err = e.found(changes)
	return "", err
}

// askConsent returns why the node does not consent.
func (e *Entry) askConsent(ctx context.Context, p *peer, me *clusterpb.ConsentRequest) (reason string) {
	// Twice as long as one question: the node may have to ask its former candidate.
	ctx, cancel := context.WithTimeout(ctx, 2*e.cfg.ProbeTimeout)
	defer cancel()
	conn, err := e.cfg.Dial(p.address)
	if err != nil {
		return fmt.Sprintf("%s: %v", p.address, err)
	}
	defer func() { _ = conn.Close() }()
	resp, err := clusterpb.NewClusterClient(conn).Consent(ctx, me)
	switch {
	case err != nil:
		return fmt.Sprintf("%s does not answer whether it consents: %v", p.address, fromWire(err))
	case !resp.Granted:
		return resp.Reason
	}
	return ""
}

func (e *Entry) isSelf(c *clusterpb.ConsentRequest) bool {
	return c != nil && bytes.Equal(c.CandidateStoreUuid, e.uuid)
}

// candidacy is the consent that this node holds to, and how many it has written by then.
func (e *Entry) candidacy() (held *clusterpb.ConsentRequest, changes uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if held, err = e.cfg.Store.Consent(); err != nil {
		return nil, 0, fmt.Errorf("join: reading the consent: %w", err)
	}
	return held, e.changes, nil
}

func sameCandidate(a, b *clusterpb.ConsentRequest) bool {
	return bytes.Equal(a.CandidateStoreUuid, b.CandidateStoreUuid)
}

// before is the order of candidates: an operator's word, then the lower address, then the lower uuid.
func before(a, b *clusterpb.ConsentRequest) bool {
	if a.Init != b.Init {
		return a.Init
	}
	if a.CandidateAddress != b.CandidateAddress {
		return a.CandidateAddress < b.CandidateAddress
	}
	return bytes.Compare(a.CandidateStoreUuid, b.CandidateStoreUuid) < 0
}
