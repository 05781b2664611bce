// Command bench measures zt beside its floors: the least programs that could do
// a part of its work (package floor), the API server without anything in between,
// an empty Go program. Both sides of each comparison run in the same minutes, in
// rounds that alternate, against the same real kube-apiserver, and what counts is
// their ratio: absolute figures say more about the machine than about zt.
//
// Nothing is measured inside zt. Programs are those that ship, the gateway and the
// agent are processes of their own, and CPU time and memory are read from the
// kernel (package proc).
//
//	go run ./test/bench -only get,list      # some sections
//	go run ./test/bench -quick              # does it still work? no figures to quote
//	go run ./test/bench -o markdown         # for docs/performance.md
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"k8s.io/klog/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// section is one kind of measurement, chosen by name.
type section struct {
	name string
	what string
	run  func(context.Context, *bench) error
}

var sections = []section{
	{"credential", "the exec plugin with a live agent", runCredential},
	{"kubectl", "a whole kubectl get pod", runKubectl},
	{"get", "GET of one pod at 1, 16 and 64 in parallel", runGet},
	{"list", "LIST of 2,000 pods", runList},
	{"watch", "500 watches", runWatch},
	{"connect", "a new connection per request", runConnect},
	{"commands", "connections that a command opens", runCommands},
	{"bulk", "one stream, as fast as it goes", runBulk},
	{"stream", "64 MiB through exec and port-forward", runStream},
	{"wan", "kubectl get pod over 25 ms each way", runWAN},
	{"idle", "memory of the gateway", runIdle},
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var o options
	only := flags.String("only", "", "sections, separated by commas (default: all)")
	flags.BoolVar(&o.quick, "quick", false, "one short round of everything, to see that it works")
	flags.IntVar(&o.rounds, "rounds", 0, "as many rounds as this, instead of the usual 3 to 7 (or 1)")
	flags.Func("ways", "only these ways, separated by commas: direct,floor,chain,daisy,zt direct,zt", func(list string) error {
		o.ways = strings.Split(list, ",")
		return nil
	})
	flags.BoolVar(&o.floors, "floors", false, "without zt: the floors beside the API server")
	flags.StringVar(&o.output, "o", "text", "text or markdown")
	flags.StringVar(&o.profile, "profile", "", "write profiles of gateway and agent, for each section, to this `directory`")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./test/bench [flags]")
		flags.PrintDefaults()
		for _, s := range sections {
			fmt.Fprintf(stderr, "  %-12s %s\n", s.name, s.what)
		}
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if o.output != "text" && o.output != "markdown" {
		return fmt.Errorf("-o %s: text or markdown", o.output)
	}
	// The control plane's node lives in this process and logs every client that
	// goes away in the middle of a stream, as ours do.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	b, err := newBench(o, stdout, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	b.describe(args)
	if err := b.startProfiler(ctx); err != nil {
		return err
	}
	for _, s := range chosen {
		b.say("%s: %s", s.name, s.what)
		if err := b.measure(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return b.finish()
}

// measure runs one section. For profiles zt must be there before.
func (b *bench) measure(ctx context.Context, s section) error {
	if b.profiler != nil {
		if _, err := b.controlPlane(ctx); err != nil {
			return err
		}
		if _, err := b.startZT(ctx); err != nil {
			return err
		}
	}
	defer b.profiled(ctx, s.name)()
	return s.run(ctx, b)
}

func choose(only string) ([]section, error) {
	if only == "" {
		return sections, nil
	}
	var chosen []section
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(sections, func(s section) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no section %q; -h lists them", name)
		}
		chosen = append(chosen, sections[i])
	}
	return chosen, nil
}
