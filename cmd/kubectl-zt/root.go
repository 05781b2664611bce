package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/api/spelling"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
)

// rootOptions are the flags of every verb.
type rootOptions struct {
	profile string
	verbose bool
	status  *status
}

const rootLong = `Zero-trust access to Kubernetes: sign in once, then use kubectl as ever.

  kubectl zt login https://gw.example.com     sign in and get to know the gateway
  kubectl zt connect prod                     get a context for a cluster, ready to use
  kubectl zt clusters                         see which clusters there are

Exit codes: 0 success; 1 failed; 2 wrong command line; 3 a login is needed;
4 refused by the gateway or the identity provider; 5 no answer; 6 not trusted
(unknown gateway, changed pin, unsafe file); 130 interrupted. The exec plugin
` + "`credential`" + ` exits with 0 or 1.`

// execute runs the command tree and prints whatever went wrong, in one place.
func execute(ctx context.Context, p *process, args []string) exit {
	o := &rootOptions{}
	root := newRoot(p, o)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	o.status.clear()
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		err = context.Canceled
	}
	f := fault.Of(err)
	if n := profile.Name(o.profile); n != "" && !means(p, n) {
		f = f.ForProfile(o.profile)
	}
	f.Print(p.err)
	return f.Exit
}

// means reports whether a command without --profile would mean n.
func means(p *process, n profile.Name) bool {
	home, err := profile.Find(p.env)
	return err != nil || home.Means(n)
}

// next is a command to go on with, for the profile of this one.
func (o *rootOptions) next(p *process, command string) string {
	if n := profile.Name(o.profile); n != "" && !means(p, n) {
		return fault.ForProfile(command, o.profile)
	}
	return command
}

func newRoot(p *process, o *rootOptions) *cobra.Command {
	root := &cobra.Command{
		Use: "kubectl-zt", Short: "Zero-trust access to Kubernetes", Long: rootLong,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl zt"},
		SilenceErrors: true, SilenceUsage: true,
		SuggestionsMinimumDistance: 2,
		Args:                       aVerb,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.SetIn(p.in)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(c.CommandPath()+" --help", "%v", err)
	})
	flags := root.PersistentFlags()
	flags.StringVar(&o.profile, "profile", p.env("ZT_PROFILE"), "gateway to talk to, when several are known (see kubectl zt status)")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "say everything that is going on; never a secret")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp(root))
	root.AddCommand(
		newLogin(p, o), newLogout(p, o), newConnect(p, o), newClusters(p, o), newStatus(p, o),
		newKubeconfig(p, o), newTunnel(p, o), newTrust(p, o), newDevice(p, o),
		newVersion(p, o), newCompletion(root, p), newCredentialHelp(), newAgentHelp(p, o),
	)
	_ = root.RegisterFlagCompletionFunc("profile", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return profileNames(p), cobra.ShellCompDirectiveNoFileComp
	})
	return root
}

// newHelp is --help for those who write it as a command.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Say what a command does",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usage("kubectl zt --help", "%q is not a command of kubectl zt", strings.Join(args, " "))
			}
			return c.Help()
		},
	}
}

// usage is a mistake on the command line.
func usage(hint, format string, args ...any) error {
	return fault.New(fault.ExitUsage, hint, format, args...)
}

// aVerb refuses what is none of a command's verbs: those never get here.
func aVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := c.CommandPath() + " --help"
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = c.CommandPath() + " " + near[0]
	}
	return usage(hint, "%q is not a command of %s", args[0], c.CommandPath())
}

// exactly demands that many arguments, by their names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(args) < len(names) {
			return usage(c.CommandPath()+" "+strings.Join(names, " "), "%s is missing", names[len(args)])
		}
		return usage(c.CommandPath()+" --help", "%q is one argument too many", args[len(names)])
	}
}

func noArgs(c *cobra.Command, args []string) error { return exactly()(c, args) }

func atMostOne(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(c.CommandPath()+" ["+name+"]", "%q is one argument too many", args[1])
		}
		return nil
	}
}

// oneOf demands one of the allowed values of a flag.
func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	meant := spelling.Nearest(value, allowed)
	if meant == "" {
		meant = allowed[len(allowed)-1]
	}
	return usage("--"+flag+" "+meant, "--%s %q is not one of %s", flag, value, strings.TrimSpace(strings.Join(allowed, " ")))
}

func profileNames(p *process) []string {
	home, err := profile.Find(p.env)
	if err != nil {
		return nil
	}
	names, err := home.List()
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(names))
	for _, n := range names {
		out = append(out, string(n))
	}
	return out
}

var errDeclined = errors.New("declined")

// confirm asks a person; without a terminal it is no.
func confirm(ctx context.Context, p *process, question string) error {
	if !p.inTTY || !p.errTTY {
		return errDeclined
	}
	fmt.Fprintf(p.err, "%s [y/N] ", question)
	typed := make(chan string, 1)
	go func() { // a terminal cannot be called off; the process ends with its reader
		var answer string
		_, _ = fmt.Fscanln(p.in, &answer)
		typed <- strings.ToLower(answer)
	}()
	select {
	case answer := <-typed:
		if answer != "y" && answer != "yes" {
			return errDeclined
		}
		return nil
	case <-ctx.Done():
		fmt.Fprintln(p.err)
		return ctx.Err()
	}
}
