package client

// Span is a set of keys that follow each other: from Start on, to End, which is not among them.
type Span struct {
	Start string // empty: the keyspace's first key
	End   string // empty: to the keyspace's end
}

// All is the whole keyspace.
func All() Span { return Span{} }

// Key is the span of one key.
func Key(k string) Span { return Span{Start: k, End: k + "\x00"} }

// Prefix is the span of all keys that begin with p.
func Prefix(p string) Span {
	end := []byte(p)
	for len(end) > 0 {
		if end[len(end)-1]++; end[len(end)-1] != 0 {
			return Span{Start: p, End: string(end)}
		}
		end = end[:len(end)-1] // it was 0xff: the next key is one of a shorter prefix
	}
	return Span{Start: p}
}

// wire is the span as etcd's requests say it: no key is empty, and the end of the keyspace is a zero byte.
func (s Span) wire() (key, end []byte) {
	key, end = []byte(s.Start), []byte(s.End)
	if len(key) == 0 {
		key = []byte{0}
	}
	if len(end) == 0 {
		end = []byte{0}
	}
	return key, end
}
