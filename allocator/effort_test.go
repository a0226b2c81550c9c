package allocator

// Limit has each pass look at that little, so that a small cluster takes many passes.
func (s *Snapshot) Limit(sorts, visits int) { s.effort = effort{sorts: sorts, visits: visits} }
