package e2e

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/test/env/stack"
)

const (
	overWebSocket = "websocket"
	overSPDY      = "SPDY/3.1"
)

// transports are the kubectls that people have, by each way in which they stream.
// 1.27 knows SPDY alone.
var transports = []struct {
	name, kubectl, upgrade string
	// full: 64 MiB also in a short run. The bytes of all kubectls go the same way
	// through zt; 4 MiB is more than any of its windows.
	full bool
}{
	{"websocket", "kubectl", overWebSocket, true},
	{"spdy", "kubectl", overSPDY, true},
	{"1.32 websocket", "kubectl-1.32", overWebSocket, false},
	{"1.32 spdy", "kubectl-1.32", overSPDY, false},
	{"1.27 spdy", "kubectl-1.27", overSPDY, false},
}

// V133: exec, attach, port-forward, cp, run and debug of stock kubectls, over SPDY
// and over WebSocket, do through zt what they do without it: exit codes, the end
// of the input, terminals and their size, and every byte.
func TestV133StreamsOfStockKubectl(t *testing.T) {
	t.Parallel()
	s := world(t)
	carol := admin(t, s)
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Parallel()
			g := newStreams(t, s, carol, transport.kubectl, transport.upgrade)
			g.bulk = bulk()
			if !transport.full && !soaking() {
				g.bulk = g.bulk[:4<<20]
			}
			g.pod(t, "idle", corev1.Container{})
			t.Run("streams", func(t *testing.T) {
				for name, test := range map[string]func(*testing.T){
					"exec":         g.exec,
					"terminal":     g.terminal,
					"attach":       g.attach,
					"run":          g.run,
					"debug":        g.debug,
					"port-forward": g.portForward,
					"cp":           g.copyFiles,
					"logs":         g.logs,
				} {
					t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
				}
			})
			g.wantUpgrades(t)
		})
	}
}

// streams runs one kubectl over one transport in a namespace of its own.
type streams struct {
	stack     *stack.Stack
	laptop    *stack.Laptop
	kubectl   string
	upgrade   string
	namespace string
	bulk      []byte
}

var unsafeInNames = strings.NewReplacer("/", "-", " ", "-", ".", "-", "_", "-", "#", "-")

func newStreams(t *testing.T, s *stack.Stack, l *stack.Laptop, kubectl, upgrade string) *streams {
	t.Helper()
	name := unsafeInNames.Replace(t.Name())
	name = strings.Trim(name[max(0, len(name)-50):]+"-"+cryptorand.Text()[:8], "-")
	g := &streams{stack: s, laptop: l, kubectl: kubectl, upgrade: upgrade, namespace: strings.ToLower(name)}
	if _, err := s.ControlPlane.ServiceAccountToken(t.Context(), g.namespace, "default", time.Hour); err != nil {
		t.Fatal(err)
	}
	return g
}

// pod makes a pod with one container and waits until it runs.
func (g *streams) pod(t *testing.T, name string, c corev1.Container) {
	t.Helper()
	c.Name, c.Image = "main", "x"
	pods := g.stack.ControlPlane.Client().CoreV1().Pods(g.namespace)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{c}}}
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "pod "+name+" runs", func() bool {
		now, err := pods.Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && len(now.Status.ContainerStatuses) > 0 && now.Status.ContainerStatuses[0].Started != nil && *now.Status.ContainerStatuses[0].Started
	})
}

// command prepares this transport's kubectl, as carol, through zt.
func (g *streams) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := g.laptop.Command(ctx, g.kubectl, append([]string{"-n", g.namespace}, args...)...)
	on := fmt.Sprint(g.upgrade == overWebSocket)
	cmd.Env = append(cmd.Env, "TERM=xterm", "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+on, "KUBECTL_PORT_FORWARD_WEBSOCKETS="+on)
	return cmd
}

// do runs kubectl to its end.
func (g *streams) do(t *testing.T, stdin io.Reader, args ...string) stack.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := g.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	res := stack.Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: exitCode(err), Took: time.Since(start)}
	if res.Code < 0 {
		t.Fatalf("kubectl %v: %v; %v", args, err, res)
	}
	return res
}

// exitCode is -1 for a program that did not exit by itself.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

// wantUpgrades holds what came through the gateway against what was wanted: a
// kubectl whose WebSocket fails goes on over SPDY without a word.
func (g *streams) wantUpgrades(t *testing.T) {
	t.Helper()
	upgrades := 0
	for _, r := range gatewayAudit(t, g.stack) {
		switch {
		case r.Namespace != g.namespace || r.Kind != audit.KindOutcome || r.Code != http.StatusSwitchingProtocols:
		case r.Upgrade == g.upgrade:
			upgrades++
		default:
			t.Errorf("%s of pod %s came over %s: %s (%d)", r.Subresource, r.Name, r.Upgrade, r.Command, r.Code)
		}
	}
	if upgrades == 0 {
		t.Errorf("nothing came over %s", g.upgrade)
	}
}

// bulk is what is sent to see every byte arrive.
var bulk = sync.OnceValue(func() []byte {
	b := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func (g *streams) exec(t *testing.T) {
	for _, test := range []struct {
		name           string
		stdin          []byte
		command        string
		stdout, stderr string
		code           int
	}{
		{name: "exit code", command: "exit 42", code: 42},
		{name: "signal", command: "kill -KILL $$", code: 128 + 9},
		{name: "both outputs", command: "echo out; echo diag >&2", stdout: "out\n", stderr: "diag\n"},
		{name: "end of the input", stdin: []byte("one\ntwo\n"), command: "cat; echo end", stdout: "one\ntwo\nend\n"},
		{name: "answer after the end of the input", stdin: []byte("a"), command: "wc -c; exit 3", stdout: "1\n", code: 3},
		{name: "command that reads nothing", stdin: g.bulk[:1<<20], command: "exit 5", code: 5},
		{name: "bulk in", stdin: g.bulk, command: "sha256sum | cut -d' ' -f1", stdout: sum(g.bulk) + "\n"},
		{name: "bulk both ways", stdin: g.bulk, command: "cat", stdout: string(g.bulk)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			args := []string{"exec", "idle"}
			var stdin io.Reader
			if test.stdin != nil {
				args = append(args, "-i")
				stdin = bytes.NewReader(test.stdin)
			}
			res := g.do(t, stdin, append(args, "--", "sh", "-c", test.command)...)
			if res.Code != test.code {
				t.Errorf("exit code %d, want %d: %.300s", res.Code, test.code, res.Stderr)
			}
			if res.Stdout != test.stdout {
				t.Errorf("stdout has %d bytes, want %d: %.80q", len(res.Stdout), len(test.stdout), res.Stdout)
			}
			if !strings.HasSuffix(res.Stderr, test.stderr) { // after what kubectl says itself
				t.Errorf("stderr %q, want %q", res.Stderr, test.stderr)
			}
		})
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no such command":   {[]string{"exec", "idle", "--", "/no/such"}, "no such file"},
		"no such container": {[]string{"exec", "idle", "-c", "other", "--", "true"}, "container other is not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if res := g.do(t, nil, test.args...); res.Code != 1 || !strings.Contains(res.Stderr, test.want) {
				t.Errorf("want exit 1 and %q: %v", test.want, res)
			}
		})
	}
}

func (g *streams) attach(t *testing.T) {
	g.pod(t, "talker", corev1.Container{Stdin: true, StdinOnce: true, Command: []string{"sh", "-c", `while read -r l; do echo "got $l"; echo "diag $l" >&2; done; exit 4`}})
	res := g.do(t, strings.NewReader("one\ntwo\n"), "attach", "-i", "talker")
	if res.Code != 0 || res.Stdout != "got one\ngot two\n" || !strings.Contains(res.Stderr, "diag one\ndiag two\n") {
		t.Errorf("%v", res)
	}
}

func (g *streams) run(t *testing.T) {
	res := g.do(t, strings.NewReader("hello\n"), "run", "runner", "-i", "--rm", "--image=x", "--restart=Never", "--", "sh", "-c", "cat; exit 6")
	if res.Code != 6 || !strings.Contains(res.Stdout, "hello\n") {
		t.Errorf("want exit 6 and hello: %v", res)
	}
}

func (g *streams) debug(t *testing.T) {
	// Its input stays open when who is attached goes, so it must know when to end.
	res := g.do(t, strings.NewReader("hello\n"), "debug", "idle", "-i", "--image=x", "--container=helper", "--profile=general", "--", "sh", "-c", "read -r l; echo helped: $l")
	if res.Code != 0 || !strings.Contains(res.Stdout, "helped: hello\n") {
		t.Errorf("%v", res)
	}
}

func (g *streams) copyFiles(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	content := g.bulk[:4<<20]
	if err := os.WriteFile(filepath.Join(here, "file"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if res := g.do(t, nil, "cp", filepath.Join(here, "file"), "idle:"+filepath.Join(there, "up")); res.Code != 0 {
		t.Fatal(res)
	}
	if res := g.do(t, nil, "cp", "idle:"+filepath.Join(there, "up"), filepath.Join(here, "down")); res.Code != 0 {
		t.Fatal(res)
	}
	for _, name := range []string{filepath.Join(there, "up"), filepath.Join(here, "down")} {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, want %d (%v)", filepath.Base(name), len(got), len(content), err)
		}
	}
}

// logs follows a container line by line, as it speaks and to its end.
func (g *streams) logs(t *testing.T) {
	say := g.writer(t)
	p := g.start(t, "logs", "-f", "writer")
	p.want(t, "one")
	for _, line := range []string{"two", "three", "last"} {
		say(line)
		p.want(t, line)
	}
	if code := p.end(t, 20*time.Second); code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr.String())
	}
	if lines := p.stdout.lines(); !slices.Equal(lines, []string{"one", "two", "three", "last"}) {
		t.Errorf("the log: %q", lines)
	}
}

// writer makes a pod of that name which prints "one", then what it is told, and
// ends after "last".
func (g *streams) writer(t *testing.T) (say func(line string)) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "more")
	g.pod(t, "writer", corev1.Container{Command: []string{"sh", "-c", fmt.Sprintf(
		`mkfifo %[1]s; exec 3<>%[1]s; echo one; while read -r l <&3; do echo "$l"; test "$l" = last && exit; done`, fifo)}})
	return func(line string) {
		t.Helper()
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, _ = io.WriteString(f, line+"\n")
	}
}

// What follows and hears nothing for long hears what comes then, and lets it not
// wait in a buffer (U6).
func TestIdleFollowers(t *testing.T) {
	t.Parallel()
	idle := time.Second
	if soaking() {
		idle = 10 * time.Minute
	}
	s := world(t)
	g := newStreams(t, s, admin(t, s), "kubectl", overWebSocket)
	say := g.writer(t)
	logs := g.start(t, "logs", "-f", "writer")
	watch := g.start(t, "get", "configmaps", "-w", "-o", "name")
	exec := g.start(t, "exec", "-i", "writer", "--", "cat")
	logs.want(t, "one")
	watch.want(t, "configmap/kube-root-ca.crt")
	time.Sleep(idle)

	began := time.Now()
	say("late")
	logs.want(t, "late")
	maps := s.ControlPlane.Client().CoreV1().ConfigMaps(g.namespace)
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	watch.want(t, "configmap/late")
	_, _ = io.WriteString(exec.stdin, "late\n")
	exec.want(t, "late")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to hear", took)
	}
}
