package gateway

import (
	"bufio"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/test/idp"
)

func (r *rig) directClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialTLSContext: r.directDialer("h2"), ForceAttemptHTTP2: true}}
}

func (r *rig) directRequest(path, token string) *http.Request {
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "https://"+r.kube.directHost+path, nil)
	must(r.t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return request
}

// TestStrangersDoNotFillTheLog: requests of nobody are all refused and counted, and
// only some are recorded, or a stranger could fill the disk and so stop everybody.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	_, further := furtherIssuer(t)
	r := newRig(t, rigOptions{direct: true, further: further, manifests: corporate})
	client, began := r.directClient(), time.Now()
	const flood = 600
	for range flood {
		if got := r.do(client, r.directRequest("/api/v1/pods", "")); got.code != http.StatusUnauthorized {
			t.Fatalf("%d %s", got.code, got.body)
		}
	}
	most := 10*strangerRecords + int(strangerRecords*time.Since(began).Seconds()) + 1
	if n := len(r.records()); n > most || n == 0 {
		t.Errorf("%d records of %d requests, want at most %d", n, flood, most)
	}
}

// TestDirectEnds: what lives on the direct name ends when that is switched off, and
// when the token that began it has expired: nobody renews such a token.
func TestDirectEnds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end  func(*rig)
		want string
	}{
		"switched off": {func(r *rig) {
			cluster := r.snapshot.Load().Clusters["prod"].DeepCopy()
			cluster.Spec.Direct = false
			r.apply(cluster, corporate)
		}, "switched off"},
		"expired": {func(r *rig) { r.ahead.Store(int64(48 * time.Hour)) }, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider, further := furtherIssuer(t)
			r := newRig(t, rigOptions{direct: true, further: further, manifests: corporate})
			r.upstream.handle(func(rw http.ResponseWriter, request *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(rw, "{}\n")
				_ = http.NewResponseController(rw).Flush()
				<-request.Context().Done()
			})
			client := r.directClient()
			token := provider.MintIDToken("alice", idp.Mint{Claims: map[string]any{"aud": "kubernetes"}})
			watch, err := client.Do(r.directRequest("/api/v1/pods?watch=1", token))
			must(t, err)
			defer watch.Body.Close()
			lines := bufio.NewReader(watch.Body)
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			ended := make(chan string, 1)
			go func() {
				rest, _ := io.ReadAll(lines)
				ended <- string(rest)
			}()
			tc.end(r)
			select {
			case rest := <-ended:
				if !strings.Contains(rest, tc.want) {
					t.Errorf("the watch was told %q, want %q", rest, tc.want)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the watch lives on")
			}
		})
	}
}

// TestPlainQuery: an empty number is none for RequestInfo, which would log the whole
// query with whatever token is in it.
func TestPlainQuery(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]bool{
		"": true, "limit=500": true, "limit=&access_token=secret": false, "timeoutSeconds=": false, "limit=x": false, "watch=1": true,
	} {
		if got := plainQuery(query); got != want {
			t.Errorf("%q: %v", query, got)
		}
	}
}

// Shares are equal among those who have something in flight, so a site that has
// 65,536 networks must not be as many.
func TestStrangersOfOneSiteShare(t *testing.T) {
	t.Parallel()
	holder := func(address string) string {
		return stranger(edge.Notes{Client: netip.MustParseAddrPort(address), Regime: edge.RegimeDirect})
	}
	if a, b := holder("[2001:db8:1:1::1]:4711"), holder("[2001:db8:1:2::1]:4711"); a != b {
		t.Errorf("one site is %q and %q", a, b)
	}
	if a, b := holder("[2001:db8:1::1]:4711"), holder("[2001:db8:2::1]:4711"); a == b {
		t.Errorf("two sites are %q", a)
	}
	if a, b := holder("192.0.2.1:4711"), holder("192.0.2.2:4711"); a == b {
		t.Errorf("two addresses are %q", a)
	}
	if holder("192.0.2.1:4711") != holder("[::ffff:192.0.2.1]:4712") {
		t.Error("one address in two forms is two")
	}
}
