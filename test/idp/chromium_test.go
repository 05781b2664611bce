package idp_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/test/idp"
)

// TestChromium drives the pages in a real browser. Where there is none and none
// can be installed it is skipped, and says so.
func TestChromium(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	program, err := idp.FindChromium(ctx)
	if errors.Is(err, idp.ErrNoChromium) {
		t.Skipf("SKIPPED, the login pages were not seen by a real browser: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, idp.Options{SecondFactor: true})
	browser, err := r.Chromium(ctx, program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := browser.Close(); err != nil {
			t.Error(err)
		}
	}()
	seen := make(chan url.Values, 8)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/callback" {
			seen <- req.URL.Query()
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<title>arrived</title>"))
	}))
	defer page.Close()
	r.config.RedirectURL = page.URL + "/callback"
	at, err := browser.Login(ctx, r.config.AuthCodeURL("the-state", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if at.Title != "arrived" {
		t.Errorf("ended at %+v", at)
	}
	if q := <-seen; q.Get("code") == "" || q.Get("state") != "the-state" {
		t.Errorf("callback %v", q)
	}
	if _, err := browser.Open(ctx, "https://localhost:1/"); err == nil {
		t.Error("a page that is not there was opened")
	}
}
