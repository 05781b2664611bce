// Command kubectl-zt is the laptop's side of zt: `kubectl zt login`, and from
// then on stock kubectl works. It is also the exec credential plugin that every
// kubectl runs, so what it links and initialises is watched by a test.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "v0.0.0-dev"

func main() {
	os.Exit(int(start()))
}

func start() exit {
	p := host()
	// Kubectl's path, and the agent's, skip the command tree.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "credential":
			return credentialMain(p, os.Args[2:])
		case "agent":
			return agentMain(p, os.Args[2:])
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends whatever does not hear the first
	return execute(ctx, p, os.Args[1:])
}
