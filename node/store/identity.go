package store

import (
	"crypto/rand"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// FormatVersion is the version of a store's layout. A store of a newer one is refused.
const FormatVersion = 1

// ReadIdentity is the store's identity as it is written there; nil: there is none.
func ReadIdentity(r engine.Reader) (*metapb.StoreIdentity, error) {
	id := &metapb.StoreIdentity{}
	if known, err := getProto(r, keys.StoreIdentity(), id); err != nil || !known {
		return nil, err
	}
	return id, nil
}

// OpenIdentity reads who the store belongs to and counts this start of it. A new store is given a uuid. Both are on
// disk when it returns: nothing of this process may be heard before that.
func OpenIdentity(eng engine.Engine) (*metapb.StoreIdentity, base.Incarnation, error) {
	id := &metapb.StoreIdentity{}
	known, err := getProto(eng, keys.StoreIdentity(), id)
	if err != nil {
		return nil, 0, err
	}
	if known && id.Format > FormatVersion {
		return nil, 0, fmt.Errorf("the store has format %d and this binary knows formats up to %d: start it with the newer "+
			"version of cairn that wrote it", id.Format, FormatVersion)
	}
	inc, err := readUint(eng, keys.StoreIncarnation())
	if err != nil {
		return nil, 0, err
	}
	inc++
	b := eng.NewBatch()
	if !known {
		id.StoreUuid = make([]byte, 16)
		rand.Read(id.StoreUuid) // never fails: crypto/rand
		id.Format = FormatVersion
		if err := setProto(b, keys.StoreIdentity(), id); err != nil {
			return nil, 0, err
		}
	}
	if err := b.Set(keys.StoreIncarnation(), uintBytes(nil, inc)); err != nil {
		return nil, 0, err
	}
	return id, base.Incarnation(inc), commitSync(b)
}

// Adopt makes a store that belongs to nobody part of a cluster, with what is known of the other nodes.
func Adopt(eng engine.Engine, id *metapb.StoreIdentity, book *metapb.AddressBook) error {
	b := eng.NewBatch()
	if err := setProto(b, keys.StoreIdentity(), id); err != nil {
		return err
	}
	if err := setProto(b, keys.StoreAddressBook(), book); err != nil {
		return err
	}
	return commitSync(b)
}

// WriteIdentity replaces what the store knows of whom it belongs to. It is on disk when it returns.
func WriteIdentity(eng engine.Engine, id *metapb.StoreIdentity) error {
	b := eng.NewBatch()
	if err := setProto(b, keys.StoreIdentity(), id); err != nil {
		return err
	}
	return commitSync(b)
}

// ReadAddressBook returns the node records that the store remembers.
func ReadAddressBook(r engine.Reader) (*metapb.AddressBook, error) {
	book := &metapb.AddressBook{}
	_, err := getProto(r, keys.StoreAddressBook(), book)
	return book, err
}

// WriteAddressBook remembers node records. It is not synced: an older book serves as well.
func WriteAddressBook(eng engine.Engine, book *metapb.AddressBook) error {
	b := eng.NewBatch()
	defer b.Close()
	if err := setProto(b, keys.StoreAddressBook(), book); err != nil {
		return err
	}
	return b.CommitNoSync()
}

// ReadConsent returns to whom this store gave its consent to found a cluster; nil: to nobody.
func ReadConsent(r engine.Reader) (*clusterpb.ConsentRequest, error) {
	c := &clusterpb.ConsentRequest{}
	if known, err := getProto(r, keys.StoreConsent(), c); err != nil || !known {
		return nil, err
	}
	return c, nil
}

// WriteConsent makes a consent durable before it is spoken.
func WriteConsent(eng engine.Engine, c *clusterpb.ConsentRequest) error {
	b := eng.NewBatch()
	if err := setProto(b, keys.StoreConsent(), c); err != nil {
		return err
	}
	return commitSync(b)
}

func setProto(w engine.Writer, key []byte, m proto.Message) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return w.Set(key, raw)
}

func commitSync(b engine.Batch) error {
	wait, err := b.CommitSync()
	if err != nil {
		b.Close()
		return err
	}
	return wait()
}
