package join

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
)

// peer is another node, as it answered.
type peer struct {
	place // where it was asked, which may be another name than the one that it advertises
	id    *clusterpb.IdentityResponse
}

// survey is what one round through the addresses found.
type survey struct {
	members []*peer  // part of a cluster, all of the same one unless unclear says otherwise
	waiting []*peer  // not part of any, ordered by what they advertise; without this node
	silent  []string // address: reason
	self    int      // addresses that are this node itself
	unclear string   // why it is not clear which cluster is meant, as long as names lead to several
}

// look asks at every address that --join leads to now who answers there. Once one of the cluster own has, those are silent that do not
// answer soon after; of 0, which is none, all are waited for.
func (e *Entry) look(ctx context.Context, own uint64) (*survey, error) {
	type answer struct {
		id  *clusterpb.IdentityResponse
		err error
	}
	places, silent := e.discover(ctx)
	answers := make([]answer, len(places))
	probes, enough := context.WithCancel(ctx)
	defer enough()
	var g errgroup.Group
	for i, p := range places {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(probes, e.cfg.ProbeTimeout)
			defer cancel()
			id, err := probe(ctx, e.cfg.Dial, p.address)
			answers[i] = answer{id, err}
			if err == nil && own != 0 && id.ClusterId == own && !bytes.Equal(id.StoreUuid, e.uuid) {
				time.AfterFunc(base.JoinRest, enough)
			}
			return nil
		})
	}
	_ = g.Wait() // each answer carries its own error
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &survey{silent: silent}
	for i, p := range places {
		if err := answers[i].err; err != nil {
			s.silent = append(s.silent, fmt.Sprintf("%s: %v", p.address, err))
			continue
		}
		if err := e.sort(s, &peer{place: p, id: answers[i].id}); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(s.waiting, func(p, q *peer) int { return cmp.Compare(p.id.Address, q.id.Address) })
	return s, nil
}

// sort puts an answer where it belongs in the survey.
func (e *Entry) sort(s *survey, p *peer) error {
	if bytes.Equal(p.id.StoreUuid, e.uuid) {
		if p.id.Address != e.cfg.Self.Address {
			return refusef("a node that advertises %s runs on the same store as this one (its uuid is %x): one of "+
				"the two is a copy; give this node a store directory of its own", p.id.Address, e.uuid)
		}
		s.self++
		return nil
	}
	list := &s.waiting
	if p.id.ClusterId != 0 {
		list = &s.members
		if len(s.members) > 0 && s.members[0].id.ClusterId != p.id.ClusterId {
			m := s.members[0]
			refusal := refusef("--join names nodes of two clusters: %s is part of cluster %x and %s of cluster %x; "+
				"leave out the addresses of the one that is not meant",
				m.address, m.id.ClusterId, p.address, p.id.ClusterId)
			if !m.looked && !p.looked {
				return refusal
			}
			s.unclear = refusal.Error()
		}
	}
	for _, known := range *list {
		if bytes.Equal(known.id.StoreUuid, p.id.StoreUuid) {
			return nil // one node under two of the addresses
		}
	}
	*list = append(*list, p)
	return nil
}

// describe says what is known, for the log.
func (s *survey) describe(what string) string {
	if len(s.silent) == 0 {
		return what
	}
	return what + "; no answer from " + strings.Join(s.silent, ", ")
}

func (p *peer) String() string {
	if p.id.NodeId != 0 {
		return fmt.Sprintf("%s at %s", base.NodeID(p.id.NodeId), p.address)
	}
	return p.address
}
