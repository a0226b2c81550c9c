package simulate

import (
	"embed"
	"fmt"
	"strings"
)

// The examples are scenarios that must come out as they say.
//
//go:embed examples/*.txt
var examples embed.FS

// Examples are the names of the scenarios that are built in.
func Examples() (names []string) {
	entries, err := examples.ReadDir("examples")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".txt"))
	}
	return names
}

// Example is the text of one.
func Example(name string) (string, error) {
	text, err := examples.ReadFile("examples/" + name + ".txt")
	if err != nil {
		return "", fmt.Errorf("there is no example %q: give one of %s", name, strings.Join(Examples(), ", "))
	}
	return string(text), nil
}
