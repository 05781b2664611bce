package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// arguments demands exactly those, by their names, and the flags that are marked as
// required. What is wrong comes with the way out.
func arguments(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		hint := c.Root().Name() + " " + c.Use
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing\nhint: %s", names[len(args)], hint)
		case len(args) > len(names):
			return fmt.Errorf("%q is one argument too many\nhint: %s", args[len(names)], hint)
		}
		if err := c.ValidateRequiredFlags(); err != nil {
			return fmt.Errorf("%w\nhint: %s", err, hint)
		}
		return nil
	}
}

// aVerb refuses what is none of the commands: those never get here.
func aVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := c.CommandPath() + " --help"
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = c.CommandPath() + " " + near[0]
	}
	return fmt.Errorf("%q is not a command of %s\nhint: %s", args[0], c.CommandPath(), hint)
}

func badFlag(c *cobra.Command, err error) error {
	return fmt.Errorf("%w\nhint: %s --help", err, c.CommandPath())
}
