package join

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Store is the part of a node's store that entry needs. Whatever writes has it durable, as one batch, before it
// returns. Entry makes no two calls at the same time; what it hands over it does not change afterwards.
type Store interface {
	// Identity is never nil; store_uuid and format are set from the day that the store was made.
	Identity() *metapb.StoreIdentity
	// Consent is to whom this node gave its consent; nil: to nobody.
	Consent() (*clusterpb.ConsentRequest, error)
	SetConsent(*clusterpb.ConsentRequest) error
	// Found writes the identity and the first ranges of a new cluster, whose only member is self.
	Found(id *metapb.StoreIdentity, self *metapb.NodeRecord) error
	// Adopt writes the identity and what is known of the other nodes after a member let this one in.
	Adopt(id *metapb.StoreIdentity, book *metapb.AddressBook) error
}

// Config says what an Entry works with.
type Config struct {
	Store Store
	// Self is this node's record, with address, locality, version and incarnation. The ids are the store's.
	Self *metapb.NodeRecord
	// Addresses are the parts of --join: addresses, which may be this node's too, and names to look up (CheckSources).
	Addresses []string
	// Expect is the number of nodes that make a cluster by themselves, this one counted; 0: they wait for Init.
	Expect int
	// ReplaceLost: the store that was at this node's address is lost for good; its record is to be retired.
	ReplaceLost bool
	// Found is told of each other node of this one's cluster that answers at an address; nil: nobody.
	Found func(*clusterpb.IdentityResponse)

	Dial               Dialer
	Resolver           Resolver
	LookupTimeout      time.Duration // bounds one look-up of a name
	RetryMin, RetryMax time.Duration // the wait between two rounds
	ProbeTimeout       time.Duration // bounds one Identity or Consent
	CallTimeout        time.Duration // bounds one Join or Announce
	Logger             *slog.Logger
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() {
	if c.Dial == nil {
		c.Dial = Dial
	}
	if c.Found == nil {
		c.Found = func(*clusterpb.IdentityResponse) {}
	}
	if c.Resolver == nil {
		// Go's own: it ends when its time is over, where C's holds a thread.
		c.Resolver = &net.Resolver{PreferGo: true}
	}
	c.LookupTimeout = cmp.Or(c.LookupTimeout, base.LookupTimeout)
	c.RetryMin = cmp.Or(c.RetryMin, base.JoinRetryMin)
	c.RetryMax = max(cmp.Or(c.RetryMax, base.JoinRetryMax), c.RetryMin)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, base.JoinProbeTimeout)
	c.CallTimeout = cmp.Or(c.CallTimeout, base.JoinCallTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Store == nil {
		problem("no store")
	} else if n := len(c.Store.Identity().GetStoreUuid()); n != uuidLen {
		problem("the store's uuid has %d bytes, it should have %d", n, uuidLen)
	}
	if c.Self == nil {
		problem("no record of this node")
	} else {
		if err := CheckAddress(c.Self.Address); err != nil {
			problem("the advertised address: %w", err)
		}
		if _, err := parseVersion(c.Self.Version); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, CheckSources(c.Addresses, c.Expect)...)
	return errors.Join(errs...)
}
