package login_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/test/idp"
)

// chromium starts a real browser, or skips the test and says so.
func (r *rig) chromium(t *testing.T) *idp.Chromium {
	t.Helper()
	program, err := idp.FindChromium(t.Context())
	if errors.Is(err, idp.ErrNoChromium) {
		t.Skipf("SKIPPED, no real browser has seen this: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	browser, err := r.Chromium(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := browser.Close(); err != nil {
			t.Error(err)
		}
	})
	return browser
}

func TestLoginInChromium(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{SecondFactor: true})
	browser := r.chromium(t)
	var arrived time.Time
	r.cfg.OpenBrowser = func(ctx context.Context, address string) error {
		page, err := browser.Login(ctx, address, "carol")
		arrived = time.Now()
		if err != nil {
			return err
		}
		if !strings.Contains(page.Text, "Welcome back") || !strings.Contains(page.URL, "/callback?") {
			t.Errorf("ended at %+v", page)
		}
		return nil
	}
	tokens, err := r.client(t).AuthCode(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	if tokens.Claims.Email != "carol@example.com" || tokens.Claims.Nonce != nonce {
		t.Errorf("claims %+v", tokens.Claims)
	}
	t.Logf("tokens came %s after the page", time.Since(arrived).Round(time.Millisecond))
}

// TestForeignPageInChromium gives a real page of another origin the whole
// callback and lets it try everything that does not leave the page. What the
// browser then sends must not end or use up the login.
func TestForeignPageInChromium(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	browser := r.chromium(t)
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<title>win a prize</title>"))
	}))
	t.Cleanup(foreign.Close)
	const attack = `(async target => {
		const load = e => new Promise(done => {
			e.onload = e.onerror = () => done();
			e.src = target;
			document.body.append(e);
			setTimeout(done, 3000);
		});
		const results = await Promise.allSettled([
			fetch(target),
			fetch(target, {mode: "no-cors"}),
			fetch(target, {method: "POST", mode: "no-cors", body: "x"}),
			fetch(target, {method: "PUT"}),
		]);
		await load(document.createElement("img"));
		await load(document.createElement("iframe"));
		await load(document.createElement("script"));
		return results.map(r => r.status === "fulfilled" ? r.value.type : "error").join();
	})(%q)`
	r.atCallback(func(ctx context.Context, callback *url.URL) {
		tab, err := browser.Open(ctx, strings.Replace(foreign.URL, "127.0.0.1", "localhost", 1))
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := tab.Page(ctx); err != nil {
			t.Error(err)
		}
		var got string
		if err := tab.Eval(ctx, fmt.Sprintf(attack, callback), &got); err != nil {
			t.Error(err)
		}
		if want := "error,opaque,opaque,error"; got != want { // nothing to read in any of them
			t.Errorf("the page got %q, want %q", got, want)
		}
		if n := r.Counters().Tokens; n != 0 {
			t.Errorf("the page made the client ask for tokens %d times", n)
		}
		// A form and a navigation do leave the page.
		post := fmt.Sprintf(`(() => {
			const f = document.createElement("form");
			f.method = "post"; f.action = %q;
			document.body.append(f); f.submit();
			window.ztSubmitted = true; // wait for the page after this one
		})()`, callback)
		if err := tab.Eval(ctx, post, nil); err != nil {
			t.Error(err)
		}
		if page, err := tab.Page(ctx); err != nil || !strings.Contains(page.Text, "Forbidden") {
			t.Errorf("the form ended at %+v, %v", page, err)
		}
		if n := r.Counters().Tokens; n != 0 {
			t.Errorf("the form made the client ask for tokens %d times", n)
		}
		if _, err := browser.Open(ctx, callback.String()); err != nil {
			t.Error(err)
		}
	})
	if _, err := r.client(t).AuthCode(t.Context(), nonce); err != nil {
		t.Error(err)
	}
}
