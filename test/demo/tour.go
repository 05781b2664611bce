package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/kube-zt/zt/test/env"
	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// workload is what runs in the cluster: a pod that writes a line each second.
const workload = `apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  labels: {app: web}
spec:
  containers:
  - name: web
    image: demo
    command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo "request $i served"; sleep 1; done']
`

// tour is the demo in progress.
type tour struct {
	ctx   context.Context //nolint:containedctx // a tour is one walk under one context
	stack *stack.Stack
	alice *stack.Laptop
	carol *stack.Laptop
}

func run(ctx context.Context, once, verbose bool) error {
	var log io.Writer
	if verbose {
		log = os.Stderr
	}
	say("Building zt and starting a real Kubernetes API server, an identity provider and the gateway, all on loopback.")
	if _, err := stack.Programs(ctx); err != nil {
		return err
	}
	defer stack.RemovePrograms()
	cp, err := env.Start(ctx, env.Options{ControllerManager: true, StreamNode: true, Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = cp.Stop() }()
	provider, err := idp.Start(ctx, idp.Options{})
	if err != nil {
		return err
	}
	defer provider.Close()
	if err := cp.Apply(ctx, workload); err != nil {
		return err
	}
	s, err := stack.Start(ctx, stack.Options{ControlPlane: cp, IdP: provider, Log: log})
	if err != nil {
		return err
	}
	defer s.Close()
	if _, _, err := cp.Kubectl(ctx, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s"); err != nil {
		return err
	}

	t := &tour{ctx: ctx, stack: s}
	for _, stop := range []func() error{t.employee, t.administrator, t.streams, t.revocation} {
		if err := stop(); err != nil {
			return err
		}
	}
	if once {
		say("That was the main job. Everything that was started ends now.")
		return nil
	}
	t.invite()
	<-ctx.Done()
	return nil
}

func (t *tour) employee() error {
	title("1. An employee on a personal laptop")
	say("Alice has stock kubectl and kubectl-zt, no VPN and no kubeconfig. One command logs her in at the company's identity provider\n" +
		"(a real OpenID provider; her browser is played by this demo), makes a key for her device, and writes ~/.kube/zt.")
	var err error
	if t.alice, err = t.stack.Laptop("alice"); err != nil {
		return err
	}
	if err := t.must(t.alice, "kubectl-zt", "login", t.stack.LoginURL); err != nil {
		return err
	}
	if err := t.must(t.alice, "kubectl-zt", "connect", stack.Cluster); err != nil {
		return err
	}
	if err := t.must(t.alice, "kubectl", "get", "pods"); err != nil {
		return err
	}
	say("The cluster sees her, not the gateway: Kubernetes RBAC and audit work on her own name.")
	if err := t.must(t.alice, "kubectl", "auth", "whoami"); err != nil {
		return err
	}
	say("Her role covers pods. What zt's policy allows, RBAC still judges:")
	if err := t.refused(t.alice, "services is forbidden", "kubectl", "get", "services"); err != nil {
		return err
	}
	say("What no policy allows never reaches the API server, and the refusal says what would help:")
	return t.refused(t.alice, "zt", "kubectl", "delete", "pod", "web")
}

func (t *tour) administrator() error {
	title("2. An administrator: the person is not enough, the device counts")
	say("Carol is in the group all-admins. On a laptop that nobody approved she holds no role at all:")
	var err error
	if t.carol, err = t.stack.Laptop("carol"); err != nil {
		return err
	}
	if err := t.must(t.carol, "kubectl-zt", "login", t.stack.LoginURL); err != nil {
		return err
	}
	if err := t.refused(t.carol, "hint:", "kubectl-zt", "connect", stack.Cluster); err != nil {
		return err
	}
	say("An administrator of zt approves the device with a manifest (kind Device: corporate, approved). The gateway loads it at once.")
	if err := t.carol.ApproveDevice(t.ctx); err != nil {
		return err
	}
	if err := t.must(t.carol, "kubectl-zt", "connect", stack.Cluster); err != nil {
		return err
	}
	return t.must(t.carol, "kubectl", "get", "nodes")
}

func (t *tour) streams() error {
	title("3. Streams: exec and logs -f")
	if err := t.must(t.carol, "kubectl", "exec", "web", "--", "sh", "-c", "echo hello from inside the pod"); err != nil {
		return err
	}
	lines, err := t.follow(t.alice, 3)
	if err != nil {
		return err
	}
	return lines()
}

func (t *tour) revocation() error {
	title("4. Revocation bites in mid-stream")
	say("Carol follows a log. While it runs, her device is revoked by one line in its manifest.")
	id, err := t.carol.DeviceID(t.ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.ctx, 30*time.Second)
	defer cancel()
	cmd := t.carol.Command(ctx, "kubectl", "logs", "-f", "--tail=1", "web")
	prompt("carol", "kubectl logs -f --tail=1 web")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	scan := bufio.NewScanner(out)
	for range 2 {
		if !scan.Scan() {
			return errors.New("the log ended before the revocation")
		}
		fmt.Println("   " + scan.Text())
	}
	revoked := time.Now()
	if err := t.stack.WriteManifest("device-"+id+".yaml", "apiVersion: kube-zt.io/v1alpha1\nkind: Device\nmetadata:\n  name: "+id+
		"\nspec:\n  ownership: corporate\n  approved: true\n  revoked: true\n"); err != nil {
		return err
	}
	for scan.Scan() {
		fmt.Println("   " + scan.Text())
	}
	took := time.Since(revoked)
	_ = cmd.Wait()
	printed(said.String())
	if ctx.Err() != nil {
		return errors.New("the log went on after the revocation")
	}
	fmt.Printf("   (cut %.1f s after the manifest was written)\n", took.Seconds())
	if err := t.refused(t.carol, "revoked", "kubectl", "get", "pods"); err != nil {
		return err
	}
	say("Alice, on her own device, goes on:")
	return t.must(t.alice, "kubectl", "get", "pods")
}

// follow runs logs -f until n lines have come.
func (t *tour) follow(l *stack.Laptop, n int) (func() error, error) {
	ctx, cancel := context.WithTimeout(t.ctx, 30*time.Second)
	cmd := l.Command(ctx, "kubectl", "logs", "-f", "--tail=1", "web")
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	prompt("alice", "kubectl logs -f --tail=1 web")
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	return func() error {
		defer cancel()
		scan := bufio.NewScanner(out)
		for range n {
			if !scan.Scan() {
				_ = cmd.Wait()
				return errors.New("the log ended early")
			}
			fmt.Println("   " + scan.Text())
		}
		fmt.Println("   ^C")
		cancel()
		_ = cmd.Wait()
		return nil
	}, nil
}

func (t *tour) invite() {
	title("Now it is yours")
	fmt.Printf(`The demo stays up until you press Ctrl-C. In another terminal:

  eval "$(cat <<'EOF'
%s
EOF
)"
  kubectl get pods
  kubectl zt clusters -o wide
  kubectl zt status

There you are alice, whose browser signs her in by itself. Bob (a contractor) and carol (an administrator) need a device of
their own, which is another ZT_HOME; the password of each is the name:

  export ZT_HOME="$HOME/second" BROWSER=none
  kubectl zt login '%s'

The gateway's configuration is in %s (edit it, it is loaded at once),
its own record of every decision in %s.
`, exports(t.alice.Environ()), t.stack.LoginURL, t.stack.ConfigDir, t.stack.AuditLog())
}

func exports(environ []string) string {
	var b strings.Builder
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "HOME", "XDG_RUNTIME_DIR", "KUBECONFIG", "PATH", "BROWSER":
			fmt.Fprintf(&b, "export %s='%s'\n", name, value)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

// must runs a command that has to succeed.
func (t *tour) must(l *stack.Laptop, program string, args ...string) error {
	res := t.show(l, program, args...)
	if res.Code != 0 {
		return fmt.Errorf("%s %s ended with exit code %d", program, strings.Join(args, " "), res.Code)
	}
	return nil
}

// refused runs a command that has to fail with a text.
func (t *tour) refused(l *stack.Laptop, text, program string, args ...string) error {
	res := t.show(l, program, args...)
	if res.Code == 0 || !strings.Contains(res.Stderr, text) {
		return fmt.Errorf("%s %s: want a refusal with %q, got %v", program, strings.Join(args, " "), text, res)
	}
	return nil
}

func (t *tour) show(l *stack.Laptop, program string, args ...string) stack.Result {
	who := "alice"
	if l == t.carol {
		who = "carol"
	}
	line := strings.Replace(program, "kubectl-zt", "kubectl zt", 1) + " " + strings.Join(args, " ")
	prompt(who, line)
	ctx, cancel := context.WithTimeout(t.ctx, time.Minute)
	defer cancel()
	res := l.Run(ctx, program, args...)
	// What is said on the way to a result stands before it.
	printed(res.Stderr)
	printed(res.Stdout)
	return res
}

func printed(text string) {
	for line := range strings.Lines(text) {
		fmt.Println("   " + strings.TrimRight(line, "\n"))
	}
}

func title(text string)       { fmt.Printf("\n== %s\n", text) }
func say(text string)         { fmt.Printf("\n%s\n", text) }
func prompt(who, line string) { fmt.Printf("\n  %s$ %s\n", who, line) }
