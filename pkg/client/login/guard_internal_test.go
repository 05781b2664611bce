package login

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// TestGuardSecondUse looks at the moment between the first valid callback and
// the end of the listener: of many at a time one gets through, all others are
// told 410. The one that got through is held until everybody has an answer.
func TestGuardSecondUse(t *testing.T) {
	t.Parallel()
	const host, callers = "127.0.0.1:1234", 50
	var mu sync.Mutex
	passed, gone := 0, 0
	everybody := make(chan struct{})
	seen := func(count *int) {
		mu.Lock()
		defer mu.Unlock()
		if *count++; passed+gone == callers {
			close(everybody)
		}
	}
	g := &guard{host: host, state: "s", issuer: "https://idp.test", end: func(error) { t.Error("login was ended") }}
	h := g.before(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		seen(&passed)
		<-everybody
	}))
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			r := httptest.NewRequest(http.MethodGet, "http://"+host+"/callback?state=s&code=c&iss=https://idp.test", nil)
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code == http.StatusGone {
				seen(&gone)
			}
		})
	}
	all.Wait()
	if passed != 1 || gone != callers-1 {
		t.Errorf("%d passed, %d were told 410; want 1 and %d", passed, gone, callers-1)
	}
}
