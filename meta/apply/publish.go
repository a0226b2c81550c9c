package apply

import (
	"bytes"
	"fmt"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
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
	if newer, err := p.shadow(d); err != nil || newer != nil {
		return done{response: &kvpb.PublishDescriptorResponse{Current: newer}}, err
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
	p.out.Indexed = append(p.out.Indexed, Indexed{Key: c.Key, Descriptor: d})
	return done{response: &kvpb.PublishDescriptorResponse{Stored: true, Current: d}}, nil
}

// shadow is the index's next entry if that range holds keys of d and is newer: then d is what a range was before it was taken
// over, told late. Nil, and nothing stands in d's way; or the next entry is another range's of the index to know.
func (p *pass) shadow(d *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	if len(d.End) == 0 {
		return nil, nil
	}
	here, ks := base.KeyspaceID(p.desc.KeyspaceId), base.KeyspaceID(d.KeyspaceId)
	from, _ := route.IndexSpan(ks, d.End)
	if !desc.Contains(p.desc, here, from) {
		return nil, nil
	}
	last := append(route.IndexKey(ks, nil), 0)
	if len(p.desc.End) > 0 && bytes.Compare(p.desc.End, last) < 0 {
		last = p.desc.End
	}
	rec, ok, err := p.data.First(here, from, last)
	if err != nil || !ok {
		return nil, err
	}
	next, err := desc.Decode(rec.Value)
	if err != nil {
		return nil, &base.Corruption{Where: fmt.Sprintf("%s: index entry behind %x", p.id, from), Cause: err}
	}
	if desc.Overlap(next, d) && next.Generation > d.Generation && !mutant.Is(mutant.PublishOlder) {
		return next, nil
	}
	return nil, nil
}

// unpublish deletes an entry of the index that is older than a generation: that of a range whose keys are another's now.
func (p *pass) unpublish(c *kvpb.UnpublishDescriptor, nowMicros int64) (done, error) {
	here := base.KeyspaceID(p.desc.KeyspaceId)
	if here != base.KeyspaceMeta && here != base.KeyspaceRoot {
		return refused(fmt.Errorf("%s is no index", here))
	}
	if !desc.Contains(p.desc, here, c.GetKey()) {
		return refused(p.moved())
	}
	rec, ok, err := p.data.Newest(here, c.Key)
	if err != nil || !ok {
		return done{response: &kvpb.UnpublishDescriptorResponse{}}, err
	}
	current, err := desc.Decode(rec.Value)
	if err != nil {
		return done{}, &base.Corruption{Where: fmt.Sprintf("%s: index entry %x", p.id, c.Key), Cause: err}
	}
	if current.Generation >= c.Generation {
		return done{response: &kvpb.UnpublishDescriptorResponse{}}, nil
	}
	env := p.env(nowMicros, false)
	if err := p.data.Delete(&env, c.Key); err != nil {
		return done{}, err
	}
	p.counters = env.Counters
	p.out.Indexed = append(p.out.Indexed, Indexed{Key: c.Key})
	return done{response: &kvpb.UnpublishDescriptorResponse{Deleted: true}}, nil
}
