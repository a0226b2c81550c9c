package join

import (
	"fmt"
	"strconv"
	"strings"
)

// compatible says whether nodes of the two versions can be in one cluster: the major versions are the same, and
// the minor ones are at most one apart, so that a cluster can be upgraded node by node.
func compatible(member, newcomer string) error {
	a, err := parseVersion(member)
	if err != nil {
		return err
	}
	b, err := parseVersion(newcomer)
	if err != nil {
		return err
	}
	if a.major != b.major || a.minor > b.minor+1 || b.minor > a.minor+1 {
		return fmt.Errorf("version %s cannot work with version %s: at most one minor version may lie between them",
			newcomer, member)
	}
	return nil
}

type version struct{ major, minor uint64 }

// parseVersion reads MAJOR.MINOR.PATCH; what follows a - or + in it (pre-release, build) does not matter here.
func parseVersion(s string) (version, error) {
	bad := fmt.Errorf("%q is not a version of the form MAJOR.MINOR.PATCH", s)
	core, _, _ := strings.Cut(strings.TrimPrefix(s, "v"), "+")
	core, _, _ = strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return version{}, bad
	}
	var n [3]uint64
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return version{}, bad
		}
		n[i] = v
	}
	return version{major: n[0], minor: n[1]}, nil
}
