package edge

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

func few(total, perSource int) *limit.Slots[netip.Prefix] { return bySource(total, perSource, 0) }

// A connection to a cluster's direct name has proved nothing to the edge, so it
// counts until it ends, in all and for its source.
func TestDirectConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]*limit.Slots[netip.Prefix]{"in all": few(2, 0), "of one source": few(0, 2)} {
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
			if n := r.strangers.Open(); n != 0 {
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
			eventually(t, "a slot returns", func() bool { return r.directs.Open() == 1 })
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

// One site, which has 65,536 sources to choose from, leaves places for others.
func TestStrangersAreCapped(t *testing.T) {
	t.Parallel()
	r := prepare(t, nil)
	for name, slots := range map[string]*limit.Slots[netip.Prefix]{"strangers": r.strangers, "gateways": r.gateways, "directs": r.directs} {
		enter := func(addr netip.Addr) bool {
			_, ok := slots.Enter(limit.Sources(addr)...)
			return ok
		}
		inside := 0
		for i := range 1 << 14 {
			addr := [16]byte{0x20, 1, 0x0d, 0xb8, 0, 1, byte(i >> 8), byte(i)}
			if enter(netip.AddrFrom16(addr)) {
				inside++
			}
		}
		if inside > strangersTotal/4 || inside < strangersPerSource {
			t.Errorf("%s: %d of one site", name, inside)
		}
		one := 0
		for range strangersTotal {
			if enter(netip.MustParseAddr("192.0.2.7")) {
				one++
			}
		}
		if one > strangersPerSource || one == 0 {
			t.Errorf("%s: %d of one address", name, one)
		}
	}
}
