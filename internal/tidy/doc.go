// Package tidy holds the repository's rules as tests: who may import whom, what the deterministic core may call, how
// long files and functions may be, and that the documents speak of what exists. A failure says what to do instead.
//
// Each rule is a function from a tree of files to findings. It runs on the repository (TestRepository), and on small
// trees that break it (TestRules), so that no rule can pass because it looks at nothing.
package tidy
