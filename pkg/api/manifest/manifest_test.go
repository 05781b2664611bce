package manifest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the goldens anew")

var now = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// TestGoldens holds every text that a person with a faulty file sees.
func TestGoldens(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want := archive.Files[0], &archive.Files[1]
			var got strings.Builder
			for _, e := range problems(in.Name, in.Data) {
				got.WriteString(e.Error() + "\n")
			}
			if *update {
				want.Data = []byte(got.String())
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got.Len() == 0 {
				t.Error("no problem was found")
			}
			if diff := cmp.Diff(string(want.Data), got.String()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func problems(file string, data []byte) []Error {
	if file == "gateway.yaml" {
		_, errs := DecodeGateway(file, data, now)
		return errs
	}
	objects, errs := Decode(file, data)
	for _, o := range objects {
		errs = append(errs, o.Check(now)...)
	}
	Sort(errs)
	return errs
}

func TestExamplesAreClean(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../../examples/config/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range problems(file, data) {
			t.Error(e)
		}
	}
}

func TestDecodeFillsEveryKindOfField(t *testing.T) {
	t.Parallel()
	objects, errs := Decode("a.yaml", []byte(`
apiVersion: kube-zt.io/v1alpha1
kind: TargetCluster
metadata:
  name: prod
  labels: {env: prod, since: 2026-01-01}
spec:
  url: https://10.0.0.1:6443
  hidden: true
  listenPort: 8081
  enforcement:
    mode: Permissive
    until: 2026-08-20T00:00:00Z
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: p}
spec:
  roles: [a]
  clusterSelector:
    matchLabels: {env: prod}
  rules:
  - verbs: [get]
    apiGroups: [""]
    resources: [pods]
`))
	if len(errs) > 0 || len(objects) != 2 {
		t.Fatal(len(objects), errs)
	}
	c := objects[0].Object.(*v1alpha1.TargetCluster)
	if c.Name != "prod" || c.Labels["since"] != "2026-01-01" || !c.Spec.Hidden || c.Spec.ListenPort != 8081 ||
		!c.Spec.Enforcement.Until.Time.Equal(time.Date(2026, 8, 20, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("cluster: %+v", c)
	}
	p := objects[1].Object.(*v1alpha1.AccessPolicy)
	if p.Spec.ClusterSelector.MatchLabels["env"] != "prod" || p.Spec.Rules[0].APIGroups[0] != "" {
		t.Errorf("policy: %+v", p)
	}
	if got := objects[1].Line("spec.rules[0].resources[0]"); got != 25 {
		t.Errorf("line of a list item is %d, want 25", got)
	}
	if got := objects[1].Line("spec.rules[0].namespaces[2]"); got != 23 {
		t.Errorf("line of what is missing is %d, want that of the rule, 23", got)
	}
}

func TestDecodeGatewayDefaults(t *testing.T) {
	t.Parallel()
	got, errs := DecodeGateway("gateway.yaml", []byte(`
apiVersion: kube-zt.io/v1alpha1
kind: GatewayConfiguration
domain: zt.test
directory: /var/lib/zt
oidc: {issuer: "https://idp.test", clientID: kubectl-zt}
session: {tokenLifetime: 2m}
`), now)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if got.PublicAddress != "gw.zt.test:8443" || got.TrustDomain != "zt.test" || got.Login.Enrolment != v1alpha1.EnrolmentApproval ||
		got.Session.TokenLifetime.Duration != 2*time.Minute || got.Session.MaxLength.Duration != 12*time.Hour ||
		got.Audit.File != "/var/lib/zt/state/audit.log" {
		t.Errorf("%+v", got)
	}
}

func TestDecodeCaps(t *testing.T) {
	t.Parallel()
	if _, errs := Decode("big.yaml", make([]byte, MaxFile+1)); len(errs) != 1 || !strings.Contains(errs[0].Message, "at most 1048576") {
		t.Error(errs)
	}
	// A bomb of aliases is refused at its first anchor and never unfolded.
	bomb := "apiVersion: kube-zt.io/v1alpha1\nkind: AccessRole\nmetadata: {name: a}\nspec:\n  users: &a [x]\n"
	for i := range 30 {
		bomb += "  k" + string(rune('a'+i%26)) + ": &b [*a, *a, *a, *a, *a, *a, *a, *a]\n"
	}
	if _, errs := Decode("bomb.yaml", []byte(bomb)); len(errs) == 0 {
		t.Error("the bomb was read")
	}
	// A file of nothing but slips ends after enough of them.
	var slips strings.Builder
	slips.WriteString("apiVersion: kube-zt.io/v1alpha1\nkind: AccessRole\nmetadata: {name: a}\nspec:\n")
	for i := range 50_000 {
		fmt.Fprintf(&slips, "  k%dx: 1\n", i)
	}
	if _, errs := Decode("slips.yaml", []byte(slips.String())); len(errs) > enough+1 {
		t.Errorf("%d problems", len(errs))
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		if archive, err := txtar.ParseFile(file); err == nil {
			f.Add(archive.Files[0].Data)
		}
	}
	examples, _ := filepath.Glob("../../../examples/config/*.yaml")
	for _, file := range examples {
		if data, err := os.ReadFile(file); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, errs := Decode("fuzz.yaml", data)
		for i := range objects {
			errs = append(errs, objects[i].Check(now)...)
		}
		_, more := DecodeGateway("fuzz.yaml", data, now)
		for _, e := range append(errs, more...) {
			if e.Message == "" || e.Line < 0 || strings.ContainsAny(e.Error(), "\x1b\x00\n") {
				t.Errorf("not a line to show: %q", e.Error())
			}
		}
	})
}
