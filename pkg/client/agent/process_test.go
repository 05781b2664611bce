package agent_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/test/idp"
)

// dialEnv makes this test binary a stranger who tries a socket.
const dialEnv = "ZT_TEST_DIAL"

func TestMain(m *testing.M) {
	if socket := os.Getenv(dialEnv); socket != "" {
		os.Exit(stranger(socket))
	}
	goleak.VerifyTestMain(m)
}

// stranger exits with 0 when the agent hung up on it without a word.
func stranger(socket string) int {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	request := `{"protocol":1,"op":"status"}`
	fmt.Fprintf(conn, "q\x00\x00\x00%c%s", len(request), request)
	if answer, _ := io.ReadAll(conn); len(answer) > 0 {
		fmt.Fprintf(os.Stderr, "%q\n", answer)
		return 3
	}
	return 0
}

// Should the rights of the directory ever fail, the kernel's word is left.
func TestAnotherUserIsHungUpOn(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	r := newRig(t, idp.Options{})
	for _, path := range []string{filepath.Dir(r.home.Run), r.home.Run} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(r.home.Socket(), 0o666); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(r.home.Run), "stranger")
	if err := os.WriteFile(copied, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), copied)
	cmd.Env, cmd.Dir = []string{dialEnv + "=" + r.home.Socket()}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	eventually(t, "it is logged", func() bool { return strings.Contains(r.log.String(), "another user tried the socket") })
}

// A newer binary that cannot take over leaves everything as it is.
func TestFailedHandoverChangesNothing(t *testing.T) {
	t.Parallel()
	r, access, token := ready(t, idp.Options{}, func(s *gatewaytest.State) { s.CertLife = time.Minute })
	for i, binary := range []string{"/bin/false", "/nonexistent/kubectl-zt", "/bin/sleep"} {
		c := r.client()
		c.Version, c.Binary = "v9.0.0", binary
		// An agent that is busy at this moment does not try: it is asked again.
		eventually(t, "the attempt is over", func() bool {
			var st agent.StatusResult
			if err := c.Get(t.Context(), agent.Request{Op: agent.OpStatus}, nil, &st); err != nil {
				t.Fatal(err)
			}
			return strings.Count(r.log.String(), "did not take over") > i
		})
	}
	if _, err := r.credential(false); err != nil {
		t.Error(err)
	}
	if _, err := do(r.kubectl(access, "prod"), "prod", token); err != nil {
		t.Error(err)
	}
	// The refresh token is among it: nobody has used it, and it can be used.
	if n := r.idp.Counters().Refreshes; n != 0 {
		t.Errorf("%d refreshes by heirs that came to nothing", n)
	}
	r.expire(90 * time.Second)
	if _, err := r.credential(false); err != nil {
		t.Error(err)
	}
	if c := r.idp.Counters(); c.Refreshes != 1 || c.Reuses != 0 {
		t.Errorf("%d refreshes, %d reuses, want 1 and 0", c.Refreshes, c.Reuses)
	}
}

// A port is closed under the connections that are being served on it.
func TestClosingAPortUnderLoad(t *testing.T) {
	t.Parallel()
	r, _, _ := ready(t, idp.Options{}, nil)
	port := freePort(t)
	if err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Open: true, Port: port}, nil); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "CONNECT prod.zt.test:443 HTTP/1.1\r\nHost: prod.zt.test:443\r\n\r\n")
	}
	began := time.Now()
	if err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Close: true}, nil); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	assertClosed(t, port)
}
