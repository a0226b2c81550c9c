package main

import "github.com/spf13/cobra"

// newNode holds the verbs for nodes.
func newNode(e env) *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "See nodes, and change what they are for"}
	c.AddCommand(nodeChanges(e)...)
	return c
}
