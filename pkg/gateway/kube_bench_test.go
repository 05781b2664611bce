package gateway

import (
	"io"
	"net/http"
	"testing"
)

// BenchmarkGet is one GET through the whole chain, 16 at a time, client and
// upstream in the same process. Its profile says where the time goes; how it
// compares with the least proxy there can be is for test/bench.
func BenchmarkGet(b *testing.B) {
	r := newRig(b, rigOptions{})
	alice := r.person("alice@example.com")
	r.upstream.handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}`)
	})
	client, token := alice.http("h2"), alice.token()
	b.ReportAllocs()
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "https://"+r.kube.host+"/api/v1/namespaces/dev/pods/x", nil)
			if err != nil {
				b.Error(err)
				return
			}
			request.Header.Set("Authorization", "Bearer "+token)
			response, err := client.Do(request)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			r.upstream.seen()
		}
	})
}
