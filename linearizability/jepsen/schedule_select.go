package jepsen

// nemesisNone asks for a run without faults. Such a stage is part of every run.
const nemesisNone = "none"

// Select finds the nemeses that are asked for, by name or class (all: all of them, none: nothing), and parts them into
// those that this machine can do and those that are skipped. missing says why it lacks a capability.
func Select(asked []string, missing map[Capability]string) (can []Nemesis, skipped []Skip, err error) {
	chosen, err := choose(AllNemeses(), asked)
	if err != nil {
		return nil, nil, err
	}
	can, skipped = able(chosen, missing)
	return can, skipped, nil
}
