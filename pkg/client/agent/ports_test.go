package agent_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/test/idp"
)

// Somebody else has the port just when the agent starts. Contexts that name it
// work again once it is free, with the secrets that they have.
func TestBusyPortIsTriedAgain(t *testing.T) {
	t.Parallel()
	r, access, _ := ready(t, idp.Options{}, nil)
	r.kill()
	squatter, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", access.Port))
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	r.login()
	info := strings.Replace(r.execInfo(false), `"server"`, fmt.Sprintf(`"proxy-url":"http://%s:%s@127.0.0.1:%d","server"`, access.Profile, access.Secret, access.Port), 1)
	args := agent.CredentialArgs{Cluster: "prod", ExecInfo: info}
	_, err = r.client().Do(t.Context(), attended(agent.OpCredential), args)
	wantFault(t, err, fault.ExitUntrusted, "is stale")
	squatter.Close()
	if _, err := r.client().Do(t.Context(), attended(agent.OpCredential), args); err != nil {
		t.Fatal(err)
	}
	token, err := r.credential(false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := do(r.kubectl(access, "prod"), "prod", token); err != nil {
		t.Error(err)
	}
}

// The next agent may start as soon as it has the lock, and wants the same port.
func TestLockIsReleasedAfterThePorts(t *testing.T) {
	t.Parallel()
	r, access, _ := ready(t, idp.Options{}, nil)
	lock, err := os.OpenFile(r.home.Lock(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	taken := make(chan error, 1)
	go func() {
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			taken <- err
			return
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", access.Port))
		if err == nil {
			l.Close()
		}
		taken <- err
	}()
	r.kill()
	if err := <-taken; err != nil {
		t.Error(err)
	}
}

// A port that could serve nobody is not opened in the first place.
func TestSecretlessPortNeedsASystemThatKnowsOwners(t *testing.T) {
	t.Parallel()
	r, _, _ := ready(t, idp.Options{}, nil)
	r.agent.ForgetOwners()
	port := freePort(t)
	err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Open: true, Port: port}, nil)
	f := wantFault(t, err, fault.ExitFailed, "does not tell whose a connection is")
	if diff := cmp.Diff([]string{"kubectl zt tunnel --env"}, f.Hints); diff != "" {
		t.Error(diff)
	}
	assertClosed(t, port)
}

// What an administrator has fixed holds by whatever flag the port is named.
func TestFixedPortHoldsForListenToo(t *testing.T) {
	t.Parallel()
	fixed := freePort(t)
	r, _, _ := ready(t, idp.Options{}, func(s *gatewaytest.State) {
		s.Clusters["prod"].ListenPort, s.Clusters["prod"].ListenPortFixed = fixed, true
	})
	other := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Cluster: "prod", Listen: other}, nil)
	wantFault(t, err, fault.ExitRefused, "fixes its port")
	if err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Cluster: "prod", Listen: fmt.Sprintf("127.0.0.1:%d", fixed)}, nil); err != nil {
		t.Error(err)
	}
}
