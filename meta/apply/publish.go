package apply

import (
	"bytes"
	"fmt"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
)

// publish puts a descriptor into the index, which is this range's keyspace, if it is newer than what is there. The index
// is ordinary data, an encoded descriptor under each route.IndexKey. So the order in which changes of a range reach the
// index does not matter, and publishing may be repeated until it is acknowledged.
func (p *pass) publish(c *kvpb.PublishDescriptor, nowMicros int64) (done, error) {
	d := c.GetDescriptor_()
	if err := desc.Validate(d); err != nil {
		return refused(fmt.Errorf("to publish: %w", err))
	}
	here := base.KeyspaceID(p.desc.KeyspaceId)
	if index, ok := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId)); !ok || index != here {
		return refused(fmt.Errorf("ranges of %s are not indexed in %s", base.KeyspaceID(d.KeyspaceId), here))
	}
	if !bytes.Equal(c.GetKey(), route.DescriptorKey(d)) {
		return refused(fmt.Errorf("%x is not the index key of %s", c.GetKey(), desc.Format(d)))
	}
	if !desc.Contains(p.desc, here, c.Key) {
		return refused(p.moved())
	}
	rec, ok, err := p.data.Newest(here, c.Key)
	if err != nil {
		return done{}, err
	}
	if ok {
		current, err := desc.Decode(rec.Value)
		if err != nil {
			return done{}, &base.Corruption{Where: fmt.Sprintf("%s: index entry %x", p.id, c.Key), Cause: err}
		}
		if current.Generation >= d.Generation && !mutant.Is(mutant.PublishOlder) {
			return done{response: &kvpb.PublishDescriptorResponse{Current: current}}, nil
		}
	}
	raw, err := desc.Encode(d)
	if err != nil {
		return done{}, err
	}
	env := p.env(nowMicros, false)
	if _, err := p.data.Put(&env, c.Key, raw); err != nil {
		return done{}, err
	}
	p.counters = env.Counters
	return done{response: &kvpb.PublishDescriptorResponse{Stored: true, Current: d}}, nil
}
