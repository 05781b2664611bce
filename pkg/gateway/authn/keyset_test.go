package authn

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

// bubble runs test on a fake clock. The provider is made outside and reached in
// process, so hours pass in no time.
func bubble(t *testing.T, test func(*rig)) {
	t.Helper()
	r := newRig(t, mapping{})
	synctest.Test(t, func(t *testing.T) {
		inner := *r
		inner.t = t
		test(&inner)
	})
}

// unknownKey is a token whose kid nobody has.
func (r *rig) unknownKey(kid string) string {
	return r.mintFurther(mutation{header: map[string]any{"kid": kid}})
}

func TestV020(t *testing.T) {
	t.Parallel()
	count := 10_000
	if os.Getenv("ZT_SOAK") == "" {
		count /= 20
	}
	bubble(t, func(r *rig) {
		good := r.mintFurther(mutation{claims: map[string]any{"exp": time.Now().Add(time.Hour).Unix()}})
		r.accepted(good)
		time.Sleep(time.Minute) // no cool-down runs
		before := r.idp.Counters().JWKS
		for i := range count {
			r.refused(r.unknownKey(fmt.Sprintf("random-%d", i)), http.StatusUnauthorized)
			if i%50 == 0 {
				r.accepted(good)
			}
			time.Sleep(10 * time.Second / time.Duration(count))
		}
		if got := r.idp.Counters().JWKS - before; got > 2 {
			t.Errorf("%d fetches of keys in ten seconds, want one at the start and at most one at their end", got)
		}
	})
}

func TestV021(t *testing.T) {
	t.Parallel()
	bubble(t, func(r *rig) {
		r.accepted(r.mintFurther(mutation{}))
		time.Sleep(fetchCooldown + time.Second)
		if _, err := r.idp.RotateKey(); err != nil {
			t.Fatal(err)
		}
		r.accepted(r.mintFurther(mutation{})) // fetched at once

		// With a cool-down running the new key is known when it is over.
		if _, err := r.idp.RotateKey(); err != nil {
			t.Fatal(err)
		}
		token := r.mintFurther(mutation{})
		r.refused(token, http.StatusUnauthorized)
		time.Sleep(fetchCooldown)
		r.accepted(token)
	})
}

func TestV022(t *testing.T) {
	t.Parallel()
	bubble(t, func(r *rig) {
		r.accepted(r.mintFurther(mutation{}))
		r.idp.SetFaults(idp.Faults{Down: true})
		for range 12 {
			time.Sleep(5 * time.Minute)
			r.accepted(r.mintFurther(mutation{}))
		}
		refusal := r.refused(r.unknownKey("new"), http.StatusUnauthorized)
		if refusal.Reason != wire.ReasonIdPUnreachable {
			t.Errorf("reason %s, want %s", refusal.Reason, wire.ReasonIdPUnreachable)
		}
		if r.failed.Load() == 0 {
			t.Error("no failed fetch was counted")
		}
		// Good keys are good for a day and no longer.
		time.Sleep(22 * time.Hour)
		r.accepted(r.mintFurther(mutation{}))
		time.Sleep(2 * time.Hour)
		r.refused(r.mintFurther(mutation{}), http.StatusForbidden)

		r.idp.SetFaults(idp.Faults{})
		time.Sleep(fetchCooldown)
		r.accepted(r.mintFurther(mutation{}))
	})
}

func TestV023(t *testing.T) {
	t.Parallel()
	bubble(t, func(r *rig) {
		r.idp.SetFaults(idp.Faults{Down: true})
		// 403: stock kubectl shows its text, which it does not for a 401, and does
		// not wait, which it does for a 503 with Retry-After.
		refusal := r.refused(r.mintFurther(mutation{}), http.StatusForbidden)
		if refusal.Reason != wire.ReasonIdPUnreachable {
			t.Errorf("reason %s, want %s", refusal.Reason, wire.ReasonIdPUnreachable)
		}
		r.accepted(r.mintControl(mutation{})) // nobody else notices
		r.idp.SetFaults(idp.Faults{})
		time.Sleep(fetchCooldown)
		r.accepted(r.mintFurther(mutation{}))
	})
}

func TestV024(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]idp.Faults{
		"empty set":    {BadJWKS: idp.EmptyJWKS},
		"HTML":         {BadJWKS: idp.HTMLJWKS},
		"cut":          {BadJWKS: idp.CutJWKS},
		"other issuer": {DiscoveryIssuer: "https://evil.test"},
		"http keys":    {Metadata: map[string]any{"jwks_uri": "http://evil.test/keys"}},
		"redirect":     {RedirectDiscovery: "https://evil.test/"},
		"endless":      {On: []idp.Endpoint{idp.JWKS}, HugeBody: true},
		"error":        {Status: http.StatusInternalServerError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(r *rig) {
				r.accepted(r.mintFurther(mutation{}))
				time.Sleep(fetchCooldown)
				r.idp.SetFaults(faults)
				r.refused(r.unknownKey("new"), http.StatusUnauthorized) // causes a fetch
				if n := r.failed.Load(); n != 1 {
					t.Errorf("%d failed fetches were counted, want one", n)
				}
				r.accepted(r.mintFurther(mutation{}))
			})
		})
	}
}

// TestWithdrawnKey: a key that the issuer no longer publishes stops being good
// without anybody showing an unknown one.
func TestWithdrawnKey(t *testing.T) {
	t.Parallel()
	bubble(t, func(r *rig) {
		old := r.mintFurther(mutation{claims: map[string]any{"exp": time.Now().Add(time.Hour).Unix()}})
		r.accepted(old)
		if _, err := r.idp.RotateKey(); err != nil {
			t.Fatal(err)
		}
		r.idp.RetireKeys()
		time.Sleep(keysFresh + time.Minute)
		for _, issuer := range r.further.set.Load().issuers {
			if !issuer.keys.stale() {
				t.Fatal("keys of eleven minutes are not stale")
			}
			issuer.keys.refresh(r.t.Context())
		}
		r.refused(old, http.StatusUnauthorized)
	})
}

// documents answers with the issuer's documents by path.
type documents map[string]string

func (d documents) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(d[r.URL.Path])), Request: r}, nil
}

// TestKeysThatCostTooMuch: an issuer that was taken over cannot make each token a
// matter of minutes, neither by one enormous key nor by thousands.
func TestKeysThatCostTooMuch(t *testing.T) {
	t.Parallel()
	rsaKey := func(kid string, bits int) string {
		modulus := bytes.Repeat([]byte{0xFF}, bits/8)
		return fmt.Sprintf(`{"kty":"RSA","kid":%q,"use":"sig","e":"AQAB","n":%q}`, kid, base64.RawURLEncoding.EncodeToString(modulus))
	}
	for name, test := range map[string]struct {
		keys []string
		want int
		last string
	}{
		"enormous":  {[]string{rsaKey("small", 2048), rsaKey("enormous", 4_000_000), rsaKey("large", 4096)}, 2, "large"},
		"thousands": {slices.Repeat([]string{rsaKey("small", 2048)}, 2000), keysMost, "small"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &keySet{
				issuer: "https://idp.test", discovery: "https://idp.test/discovery", now: time.Now, algorithms: algorithms,
				client: &http.Client{Transport: documents{
					"/discovery": `{"issuer":"https://idp.test","jwks_uri":"https://idp.test/keys"}`,
					"/keys":      `{"keys":[` + strings.Join(test.keys, ",") + `]}`,
				}},
			}
			keys, err := s.fetch(t.Context())
			if err != nil || len(keys) != test.want || keys[len(keys)-1].KeyID != test.last {
				t.Errorf("%d keys, %v", len(keys), err)
			}
		})
	}
}
