package edge

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// recorded is the log of an edge, the times left out.
func recorded(t *testing.T, path string) (all []audit.Record) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var record audit.Record
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
			t.Fatal(err)
		}
		record.Time = time.Time{}
		all = append(all, record)
	}
	return all
}

// Every refusal at the edge is one record: who, from what, to what, why, and the
// decision that the person was told. What is recorded of a target is the request
// line's, whatever a Host field says, and nothing of what is sent along.
func TestRefusalsAreRecorded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(path, audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	r := start(t, func(o *Options) { o.Audit, o.TunnelsPerDevice = log, func() int { return 1 } })
	d := r.device("alice", time.Hour)
	key, err := trust.Thumbprint(d.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	c := r.connection(d)
	who := func(record audit.Record) audit.Record {
		record.Kind, record.Event = audit.KindEvent, audit.EventTunnel
		record.User, record.Device, record.Session = &d.identity.User, trust.DeviceID(key), d.identity.Session
		record.Source, record.Regime = "127.0.0.1", RegimeTunnel
		return record
	}
	want := []audit.Record{who(audit.Record{Decision: audit.Allowed})} // the tunnel itself
	refuse := func(target string, cluster wire.ClusterName, status int) {
		t.Helper()
		refused := refusal(t, connect(t, c, target))
		if refused.Status != status {
			t.Errorf("CONNECT %s: %d, want %d", target, refused.Status, status)
		}
		want = append(want, who(audit.Record{
			ID: refused.Refusal.Decision, Cluster: cluster, Decision: audit.Refused,
			Reason: refused.Refusal.Reason, Message: refused.Refusal.Message, Code: status,
		}))
	}
	refuse("absent.zt.test:443", "absent", http.StatusForbidden)
	refuse("169.254.169.254:80", "", http.StatusForbidden)
	refuse("gw.zt.test:443", "", http.StatusForbidden)
	one := accepted(t, connect(t, c, "prod.zt.test:443"))
	refuse("prod.zt.test:443", "prod", http.StatusTooManyRequests)
	one.Close()
	eventually(t, "the slot returns", func() bool { return r.tunnels.Open() == 0 })
	r.apply(v1alpha1.RevocationSpec{Cluster: "prod", Reason: "maintenance"})
	refuse("prod.zt.test:443", "prod", http.StatusForbidden)
	if diff := cmp.Diff(want, recorded(t, path)); diff != "" {
		t.Error(diff)
	}

	// By the frame, of a person who sends what he should not.
	before := len(want)
	f := r.framer(d)
	f.headers(1, false, "CONNECT", "absent.zt.test:443", [2]string{"host", "prod.zt.test:443"}, [2]string{"proxy-authorization", "Basic c2VjcmV0"})
	f.data(1, []byte("secret"))
	if got := f.status(1); got == "403" {
		eventually(t, "it is recorded", func() bool { return len(recorded(t, path)) == before+2 })
		if last := recorded(t, path)[before+1]; last.Cluster != "absent" || last.Decision != audit.Refused || last.ID == "" {
			t.Errorf("%+v", last)
		}
	} else if got != "400" {
		t.Errorf("answered %s", got)
	}
	// Whoever has no certificate dies in the handshake: there is nobody to name.
	lines := len(recorded(t, path))
	stranger := r.tls(nil)
	stranger.SetDeadline(time.Now().Add(patience))
	if _, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger got an answer")
	}
	if got := len(recorded(t, path)); got != lines {
		t.Errorf("%d records of a stranger", got-lines)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret", "c2VjcmV0"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%q stands in the log", secret)
		}
	}
}
