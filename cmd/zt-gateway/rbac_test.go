package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/env"
)

// rbacFiles are a gateway's directory whose further issuer maps claims to extra
// keys.
var rbacFiles = map[string]string{
	"gateway.yaml": `
apiVersion: kube-zt.io/v1alpha1
kind: GatewayConfiguration
directory: .
domain: zt.example.com
publicAddress: gw.zt.example.com:443
oidc: {issuer: "https://idp.example.com", clientID: zt}
furtherIssuersFile: issuers.yaml
`,
	"issuers.yaml": `
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: "https://ci.example.com", audiences: [kubernetes]}
  claimMappings:
    username: {claim: sub, prefix: "ci:"}
    extra:
    - {key: example.com/team, valueExpression: claims.team}
    - {key: example.com/pipeline, valueExpression: claims.pipeline}
`,
	"config/all.yaml": `
apiVersion: kube-zt.io/v1alpha1
kind: TargetCluster
metadata: {name: prod}
spec: {url: "https://10.0.0.1:6443", tokenFile: /nowhere}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: dev}
spec: {users: ["*"]}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: dev}
spec:
  roles: [dev]
  clusters: [prod]
  rules: [{verbs: [get, list], apiGroups: [""], resources: [pods]}]
`,
}

// rbacDir writes rbacFiles, changed by changes: "" leaves a file out.
func rbacDir(t *testing.T, changes map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range rbacFiles {
		if changed, ok := changes[name]; ok {
			text = changed
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if text == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func printRBAC(t *testing.T, flags rbacFlags) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	err = runRBAC(t.Context(), genericiooptions.IOStreams{Out: &out, ErrOut: &errOut}, flags, time.Now())
	return out.String(), errOut.String(), err
}

// TestRBACExtraKeys: what further issuers map to extra keys is among the rights.
func TestRBACExtraKeys(t *testing.T) {
	t.Parallel()
	elsewhere := filepath.Join(rbacDir(t, nil), "gateway.yaml")
	for name, test := range map[string]struct {
		changes map[string]string
		gateway string
		keys    bool
		stderr  string
		err     string
	}{
		"beside":             {keys: true},
		"by its name":        {changes: map[string]string{"gateway.yaml": ""}, gateway: elsewhere, keys: true},
		"no configuration":   {changes: map[string]string{"gateway.yaml": ""}, stderr: "--gateway FILE"},
		"no further issuers": {changes: map[string]string{"gateway.yaml": strings.Replace(rbacFiles["gateway.yaml"], "furtherIssuersFile: issuers.yaml\n", "", 1)}},
		"issuers are gone":   {changes: map[string]string{"issuers.yaml": ""}, err: "furtherIssuersFile"},
		"issuers are wrong":  {changes: map[string]string{"issuers.yaml": "jwt: 5"}, err: "issuers.yaml"},
		"a wrong name":       {gateway: elsewhere + ".no", err: "gateway.yaml.no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, profile := range []string{"constrained", "legacy"} {
				stdout, stderr, err := printRBAC(t, rbacFlags{Config: filepath.Join(rbacDir(t, test.changes), "config"), Profile: profile, Gateway: test.gateway})
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), test.err) || stdout != "" {
						t.Errorf("%v, want %q; stdout %q", err, test.err, stdout)
					}
					continue
				}
				if err != nil || !strings.Contains(stderr, test.stderr) || (stderr == "") != (test.stderr == "") {
					t.Errorf("%v, stderr %q", err, stderr)
				}
				for _, key := range []string{"userextras/example.com/team", "userextras/example.com/pipeline"} {
					if strings.Contains(stdout, key) != test.keys {
						t.Errorf("%s: want %s %t in\n%s", profile, key, test.keys, stdout)
					}
				}
			}
		})
	}
}

// TestRBACOfTheRealAPI: the account that is printed passes the gateway's proof in
// both profiles, with nothing missing, and may send a further issuer's extra keys.
func TestRBACOfTheRealAPI(t *testing.T) {
	t.Parallel()
	cp, err := env.Start(t.Context(), env.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cp.Stop() })
	for _, profile := range []v1alpha1.ImpersonationProfile{v1alpha1.ImpersonationLegacy, v1alpha1.ImpersonationConstrained} {
		stdout, stderr, err := printRBAC(t, rbacFlags{Config: filepath.Join(rbacDir(t, nil), "config"), Profile: strings.ToLower(string(profile))})
		if err != nil || stderr != "" {
			t.Fatal(err, stderr)
		}
		if err := cp.Apply(t.Context(), stdout); err != nil {
			t.Fatal(err)
		}
		token, err := cp.ServiceAccountToken(t.Context(), impersonate.Namespace, impersonate.Account, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		base, err := url.Parse(cp.URL)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := rest.TransportFor(&rest.Config{Host: cp.URL, TLSClientConfig: rest.TLSClientConfig{CAData: cp.CAPEM}})
		if err != nil {
			t.Fatal(err)
		}
		transport := &impersonate.Transport{Base: plain, Token: impersonate.NewTokenFile(file, time.Now), Bare: true}
		needs := impersonate.Needs{Profile: profile, Roles: []wire.Role{"dev"}, ExtraKeys: []string{"example.com/team", "example.com/pipeline"}}
		proof, err := (&impersonate.Prover{Client: transport, Base: base}).Prove(t.Context(), needs, nil)
		if err != nil || proof.Standing != impersonate.Proven || proof.Missing != "" {
			t.Errorf("%s: %+v %v", profile, proof, err)
		}

		extra := map[string][]string{"example.com/team": {"blue"}, "example.com/pipeline": {"1", "2"}}
		ctx := impersonate.WithIdentity(t.Context(), &impersonate.Identity{User: "ci:job", Roles: []wire.Role{"dev"}, Extra: extra, AuditID: "x"})
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, cp.URL+"/apis/authentication.k8s.io/v1/selfsubjectreviews", strings.NewReader(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		var review authenticationv1.SelfSubjectReview
		_ = json.Unmarshal(body, &review)
		got := map[string][]string{}
		for key, values := range review.Status.UserInfo.Extra {
			got[key] = values
		}
		if diff := cmp.Diff(extra, got); diff != "" || review.Status.UserInfo.Username != "ci:job" {
			t.Errorf("%s: %d %s: %s", profile, response.StatusCode, body, diff)
		}
	}
}
