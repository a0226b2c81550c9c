package mutant

// leases are the mistakes in the leases of clients.
func leases() []Mutant {
	return []Mutant{
		{LeaseExpiresAtElection, "lease-expires-at-election", "a new leader counts from when the lease was granted, and not from when it came to lead", kinExpiry},
		{LeaseExpiresInPause, "lease-expires-in-pause", "the time that a leader did not live through counts against the leases", kinExpiry},
		{LeaseAdmitIgnoresTicket, "lease-admit-ignores-ticket", "a range takes keys of a lease that was evicted since its ticket", kinExpiry},
		{LeaseIndexForgets, "lease-index-forgets", "a key that leaves a lease stays among its keys", kinExpiry},
		{LeaseSplitForgetsGuest, "lease-split-forgets-guest", "a split of a lease's home does not tell the lease of the part that it does not live in", kinExpiry},
	}
}
