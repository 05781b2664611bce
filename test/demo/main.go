// Command demo shows the main job of zt on this machine alone: a real
// kube-apiserver, a real identity provider, the shipped programs, two people.
// It says what happens in plain words, then stays up to play with; with --once it
// ends by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	once := flag.Bool("once", false, "end after the tour instead of staying up")
	verbose := flag.Bool("v", false, "show what the parts log while they start")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *once, *verbose)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}
