package compare

import "time"

// Config says how much is measured, and of what.
type Config struct {
	Seed       uint64        `json:"seed"`  // of the order of blocks, and of keys and values
	Pairs      int           `json:"pairs"` // of blocks, for each cell
	Length     time.Duration `json:"length_ns"`
	Warmup     time.Duration `json:"warmup_ns"` // of each block, before its Length
	Rest       time.Duration `json:"rest_ns"`   // after each block, before the probe
	Probe      time.Duration `json:"probe_ns"`
	Keys       int           `json:"keys"`
	ValueBytes int           `json:"value_bytes"`
	Conns      int           `json:"conns"`
	Ops        []string      `json:"ops"`
	Clients    []int         `json:"clients"`
	Stored     int           `json:"stored"`       // keys for the measure of memory
	Groups     []int         `json:"groups"`       // Raft groups of the loops; the first is what the others are held against
	LoopPairs  int           `json:"loop_pairs"`   // of blocks, for each number of groups
	LoopLength time.Duration `json:"loop_len_ns"`  // of each
	LoopClient int           `json:"loop_clients"` // proposals under way at once
}

// Full takes the measure that a claim may rest on: blocks of 5 s, five pairs of each cell; below 10 minutes in all.
func Full(seed uint64) Config {
	return Config{
		Seed: seed, Pairs: 5, Length: 5 * time.Second, Warmup: 700 * time.Millisecond,
		Rest: 150 * time.Millisecond, Probe: 150 * time.Millisecond,
		Keys: 10_000, ValueBytes: 128, Conns: 6,
		Ops: []string{"put", "get", GetAtLeader}, Clients: []int{1, 64, 512},
		Stored: 1_000_000,
		Groups: []int{1, 48}, LoopPairs: 3, LoopLength: 3 * time.Second, LoopClient: 512,
	}
}

// Quick shows in below 2 minutes whether something broke; the figures are rough.
func Quick(seed uint64) Config {
	c := Full(seed)
	c.Pairs, c.Length, c.Warmup = 2, 1750*time.Millisecond, 400*time.Millisecond
	c.LoopPairs, c.LoopLength = 1, 2*time.Second
	c.Stored = 0
	return c
}

func (c Config) cells() (cells []Cell) {
	for _, op := range c.Ops {
		for _, n := range c.Clients {
			cells = append(cells, Cell{Op: op, Clients: n})
		}
	}
	return cells
}

func (c Config) loopCells() (cells []Cell) {
	for _, n := range c.Groups {
		cells = append(cells, Cell{Op: Propose, Clients: c.LoopClient, Groups: n})
	}
	return cells
}
