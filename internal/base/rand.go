package base

// Rand is a small seeded source of random numbers (splitmix64, Steele, Lea and Flood 2014). The core draws
// from it and from nothing else, so that a run can be replayed from its seed. It is not safe for concurrent use.
type Rand struct{ state uint64 }

// NewRand returns a source that gives the same numbers for the same seed.
func NewRand(seed uint64) *Rand { return &Rand{state: seed} }

// Uint64 returns the next number.
func (r *Rand) Uint64() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// Int63n returns a number in [0, n). n must be above 0. The bias is below n/2^63.
func (r *Rand) Int63n(n int64) int64 { return int64(r.Uint64()>>1) % n }
