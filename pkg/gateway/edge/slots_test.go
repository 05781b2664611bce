package edge

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

func few(total, perSource int) *slots[netip.Prefix] {
	return newSlots[netip.Prefix](func() int { return total }, func() int { return perSource })
}

// A connection to a cluster's direct name has proved nothing to the edge, so it
// counts until it ends, in all and for its source.
func TestDirectConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]*slots[netip.Prefix]{"in all": few(2, 0), "of one source": few(0, 2)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := &backend{handle: echo}
			r := prepare(t, func(o *Options) { o.Direct = func(wire.ClusterName) Backend { return direct } })
			r.directs = limits
			dial := bubble(t, r)
			open := func() io.Closer {
				conn := dial()
				t.Cleanup(func() { conn.Close() })
				// The echo is no handshake, but it comes only from the backend.
				go tls.Client(silent{conn}, &tls.Config{ServerName: "prod.direct.zt.test", MinVersion: tls.VersionTLS13}).Handshake()
				return conn
			}
			first := open()
			open()
			eventually(t, "two are served", func() bool { return direct.open.Load() == 2 })
			if n := r.strangers.count(); n != 0 {
				t.Errorf("%d strangers, want none", n)
			}
			open()
			eventually(t, "the third is turned away", func() bool {
				return r.metric(`zt_handshake_failures_total{cause="crowded",regime="direct"}`) == "1"
			})
			if n := direct.served.Load(); n != 2 {
				t.Errorf("%d were served, want 2", n)
			}
			first.Close()
			eventually(t, "a slot returns", func() bool { return r.directs.count() == 1 })
			open()
			eventually(t, "the next is served", func() bool { return direct.served.Load() == 3 })
		})
	}
}

// Whoever fills gw.DOMAIN keeps nobody with a certificate out.
func TestFloodOfGatewayLeavesTunnels(t *testing.T) {
	t.Parallel()
	r := prepare(t, nil)
	r.strangers, r.gateways = few(4, 4), few(2, 2)
	dial := bubble(t, r)
	stranger := func(serverName string) error {
		conn := dial()
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		config := trust.GatewayClient("gw."+domain, r.authorities.Pin(), nil)
		config.ServerName = serverName
		return tls.Client(conn, config).HandshakeContext(t.Context())
	}
	for _, name := range []string{"gw." + domain, "nobody." + domain} {
		if err := stranger(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"gw." + domain, "nobody." + domain, "gw." + domain} {
		if err := stranger(name); err == nil {
			t.Errorf("one too many for %s", name)
		}
	}
	c, err := h2conn.NewClient(r.tlsOver(dial(), r.device("alice", time.Hour)), h2conn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := accepted(t, connect(t, c, "prod.zt.test:443"))
	alive(t, "the stream", s)
	if got := post(t, c, "{}"); got != http.StatusBadRequest {
		t.Errorf("a renewal: %d", got)
	}
}
