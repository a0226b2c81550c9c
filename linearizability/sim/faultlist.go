package sim

// FaultInfo is one kind of fault, for people.
type FaultInfo struct {
	Kind         FaultKind
	Class, About string
}

// Faults lists all kinds, in the order of their classes.
func Faults() (out []FaultInfo) {
	for i := range kinds {
		out = append(out, FaultInfo{kinds[i].Kind, kinds[i].Class, kinds[i].About})
	}
	return out
}
