package profile

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestParseGateway(t *testing.T) {
	t.Parallel()
	pin := strings.Repeat("0a", 32)
	for _, tc := range []struct{ in, gateway, pin, err string }{
		{in: "https://gw.example.com", gateway: "https://gw.example.com:443"},
		{in: "https://GW.Example.com:8443/", gateway: "https://gw.example.com:8443"},
		{in: "https://gw.example.com#sha256=" + strings.ToUpper(pin), gateway: "https://gw.example.com:443", pin: pin},
		{in: "https://127.0.0.1:8443#sha256=" + pin, gateway: "https://127.0.0.1:8443", pin: pin},
		{in: "https://[::1]:8443", gateway: "https://[::1]:8443"},
		{in: "http://gw.example.com", err: "must be https"},
		{in: "gw.example.com", err: "not the URL"},
		{in: "https://user@gw.example.com", err: "nothing else"},
		{in: "https://gw.example.com/x?y", err: "nothing else"},
		{in: "https://gw.example.com#sha256=abcd", err: "64 hexadecimal digits"},
		{in: "https://gw.example.com#" + pin, err: "64 hexadecimal digits"},
	} {
		gateway, p, err := ParseGateway(tc.in)
		if tc.err != "" {
			if f := fault.Of(err); f == nil || !strings.Contains(f.What, tc.err) || f.Exit != fault.ExitUsage {
				t.Errorf("%s: %v, want %q", tc.in, err, tc.err)
			}
			continue
		}
		if err != nil || gateway != tc.gateway || p != tc.pin {
			t.Errorf("%s: %s %s %v", tc.in, gateway, p, err)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for n, want := range map[Name]bool{
		"example.com": true, "a": true, "": false, "../x": false, "a/b": false, ".hidden": false, "A": false,
		"a:b": false, "a@b": false, Name(strings.Repeat("a", 64)): false,
	} {
		if n.Valid() != want {
			t.Errorf("%q: %v", n, !want)
		}
	}
}

func TestProfilesRoundTripAndChoice(t *testing.T) {
	t.Parallel()
	h := testHome(t)
	must(t, h.Prepare())
	if _, err := h.Choose(""); fault.Of(err).Exit != fault.ExitLogin {
		t.Errorf("no profile: %v", err)
	}
	want := &Profile{
		Name: "a.test", Gateway: "https://gw.a.test:443", Domain: "a.test", TrustDomain: "a.test", GatewayCA: "pem",
		OIDC: wire.OIDC{Issuer: "https://idp", ClientID: "zt"}, Clusters: map[wire.ClusterName]ClusterPin{"prod": {UID: "u", CA: "c"}},
	}
	must(t, h.Save(want))
	got, err := h.Choose("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	must(t, h.Save(&Profile{Name: "b.test"}))
	if _, err := h.Choose(""); fault.Of(err).Exit != fault.ExitUsage {
		t.Errorf("two profiles, none current: %v", err)
	}
	must(t, h.SetCurrent("b.test"))
	if p, err := h.Choose(""); err != nil || p.Name != "b.test" {
		t.Errorf("%v %v", p, err)
	}
	if _, err := h.Choose("c.test"); !strings.Contains(fault.Of(err).What, "unknown gateway") {
		t.Errorf("unknown: %v", err)
	}
	must(t, h.Forget("b.test"))
	if p, err := h.Choose(""); err != nil || p.Name != "a.test" {
		t.Errorf("after forgetting: %v %v", p, err)
	}
}

func TestDamagedOrNewerProfileIsRefused(t *testing.T) {
	t.Parallel()
	h := testHome(t)
	must(t, h.Prepare())
	for name, content := range map[Name]string{"cut": `{"version":1,"name":"cut"`, "other": `{"version":1,"name":"x"}`, "newer": `{"version":9,"name":"newer"}`} {
		must(t, os.WriteFile(h.file(name), []byte(content), 0o600))
		var f *fault.Fault
		if _, err := h.Load(name); !errors.As(err, &f) || len(f.Hints) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o700))
	long := "/" + strings.Repeat("x", 120)
	for _, tc := range []struct {
		name string
		env  map[string]string
		dir  string
		run  string
	}{
		{"ZT_HOME wins", map[string]string{"ZT_HOME": "/z", "XDG_CONFIG_HOME": "/c", "HOME": "/h", "XDG_RUNTIME_DIR": dir}, "/z", "/z/run"},
		{"XDG", map[string]string{"XDG_CONFIG_HOME": "/c", "HOME": "/h", "XDG_RUNTIME_DIR": dir}, "/c/zt", dir + "/zt"},
		{"HOME, relative XDG ignored", map[string]string{"XDG_CONFIG_HOME": "c", "HOME": "/h", "XDG_RUNTIME_DIR": dir}, "/h/.config/zt", dir + "/zt"},
	} {
		got, err := Find(func(k string) string { return tc.env[k] })
		if err != nil || got.Dir != tc.dir || got.Run != tc.run {
			t.Errorf("%s: %+v %v", tc.name, got, err)
		}
	}
	got, err := Find(func(k string) string { return map[string]string{"ZT_HOME": long}[k] })
	if err != nil || len(got.Socket()) > 100 {
		t.Errorf("long path: %q %v", got.Socket(), err)
	}
	other, _ := Find(func(k string) string { return map[string]string{"ZT_HOME": long + "y"}[k] })
	if other.Run == got.Run {
		t.Error("two homes share a runtime directory")
	}
	if _, err := Find(func(string) string { return "" }); err == nil {
		t.Error("no HOME: no error")
	}
}
