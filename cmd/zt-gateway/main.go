// Command zt-gateway stands between people and clusters: it checks devices,
// issues sessions, relays streams, and judges every request.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		if !errors.Is(err, errReported) {
			fmt.Fprintf(os.Stderr, "zt-gateway: %v\n", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	return newRoot(genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}).ExecuteContext(ctx)
}

func newRoot(streams genericiooptions.IOStreams) *cobra.Command {
	root := &cobra.Command{
		Use:           "zt-gateway",
		Short:         "Zero-trust access to the Kubernetes API: the gateway",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          aVerb,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(badFlag)
	root.AddCommand(newServeCommand(streams), newInitCommand(streams), newCheckCommand(streams), newRBACCommand(streams), newVersionCommand(streams))
	return root
}
