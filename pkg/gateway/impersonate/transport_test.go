package impersonate

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/wire"
)

// base records what would go out.
type base struct{ requests []*http.Request }

func (b *base) RoundTrip(r *http.Request) (*http.Response, error) {
	b.requests = append(b.requests, r)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

func newTransport(t *testing.T) (*Transport, *base) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("own"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &base{}
	return &Transport{Base: b, Token: NewTokenFile(path, time.Now)}, b
}

func send(t *testing.T, transport *Transport, id *Identity, header http.Header) error {
	t.Helper()
	ctx := t.Context()
	if id != nil {
		ctx = WithIdentity(ctx, id)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}
	response, err := transport.RoundTrip(r)
	if err == nil {
		response.Body.Close()
	}
	return err
}

// TestNothingWithoutIdentity: whatever is wrong with an identity, the request
// stays here.
func TestNothingWithoutIdentity(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]*Identity{
		"none":              nil,
		"empty":             {},
		"no user":           {Roles: []wire.Role{"admin"}, AuditID: "x"},
		"no audit id":       {User: "zt:alice"},
		"system user":       {User: "system:admin", AuditID: "x"},
		"System user":       {User: "System:masters", AuditID: "x"},
		"role with a colon": {User: "zt:alice", Roles: []wire.Role{"x:y"}, AuditID: "x"},
		"empty role":        {User: "zt:alice", Roles: []wire.Role{""}, AuditID: "x"},
		"zt's own extra":    {User: "zt:alice", Extra: map[string][]string{"kube-zt.io/device": {"stolen"}}, AuditID: "x"},
		"empty extra key":   {User: "zt:alice", Extra: map[string][]string{"": {"x"}}, AuditID: "x"},
		"empty extra value": {User: "zt:alice", Extra: map[string][]string{"example.com/x": {""}}, AuditID: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			transport, b := newTransport(t)
			if err := send(t, transport, id, nil); err == nil || len(b.requests) != 0 {
				t.Errorf("%v, %d requests", err, len(b.requests))
			}
		})
	}
}

// TestIdentityIsLast: what stood in the header before is replaced or gone.
func TestIdentityIsLast(t *testing.T) {
	t.Parallel()
	transport, b := newTransport(t)
	err := send(t, transport, &Identity{
		User: "zt:alice", UID: "u", Roles: []wire.Role{"a", "b"}, Device: "dev", Session: "sid", ClientIP: "192.0.2.1", AuditID: "id",
		Extra: map[string][]string{"example.com/Team": {"x", "y"}, "empty": nil},
	}, http.Header{
		"Impersonate-User": {"root"}, "Impersonate-Extra-Kube-Zt.io%2fdevice": {"other"}, "Impersonate-Extra-X": {"y"}, "impersonate-group": {"z"},
		"Authorization": {"Bearer of-the-client"}, "Audit-Id": {"of-the-client"}, "Accept": {"*/*"},
	})
	if err != nil || len(b.requests) != 1 {
		t.Fatal(err, len(b.requests))
	}
	want := http.Header{
		"Impersonate-User": {"zt:alice"}, "Impersonate-Uid": {"u"}, "Impersonate-Group": {"zt:a", "zt:b"},
		"Impersonate-Extra-Kube-Zt.io%2fdevice": {"dev"}, "Impersonate-Extra-Kube-Zt.io%2fsession": {"sid"}, "Impersonate-Extra-Kube-Zt.io%2fclient-Ip": {"192.0.2.1"},
		"Impersonate-Extra-example.com%2f%54eam": {"x", "y"},
		"Authorization":                          {"Bearer own"}, "Audit-Id": {"id"}, "Accept": {"*/*"},
	}
	if diff := cmp.Diff(want, b.requests[0].Header); diff != "" {
		t.Error(diff)
	}
}

func FuzzLooksLikeImpersonation(f *testing.F) {
	f.Add("Impersonate-User")
	f.Add("X-Impersonate")
	f.Fuzz(func(t *testing.T, name string) {
		var letters strings.Builder
		for _, c := range []byte(strings.ToLower(name)) {
			if c >= 'a' && c <= 'z' {
				letters.WriteByte(c)
			}
		}
		if got, want := looksLikeImpersonation(name), strings.HasPrefix(letters.String(), "impersonate"); got != want {
			t.Errorf("%q: %v", name, got)
		}
	})
}
