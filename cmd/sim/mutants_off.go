//go:build !mutants

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newMutants() *cobra.Command {
	return &cobra.Command{
		Use: "mutants", Short: "Plant known mistakes and see that they are found (build tag mutants)", Example: "  make mutants",
		RunE: func(*cobra.Command, []string) error {
			return errors.New("this binary has no mistakes planted: build it with -tags mutants, or run make mutants")
		},
	}
}
