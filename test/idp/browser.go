package idp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// Browser is a person at a browser without a screen: it follows redirects,
// keeps cookies, and fills in the provider's forms. It may serve several
// logins, also in parallel.
type Browser struct {
	client *http.Client
	user   func(name string) (User, bool)
	origin string // scheme and host of the provider
}

// Browser makes a browser that trusts the provider's certificate authority and
// knows everybody's password and second factor.
func (p *Provider) Browser() *Browser {
	return p.browser(&http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: p.CAPool(), MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		DisableKeepAlives:   true, // leaves no goroutine behind
	})
}

// InProcessBrowser reaches the provider without a network, by Transport. It
// cannot reach a loopback redirect.
func (p *Provider) InProcessBrowser() *Browser { return p.browser(p.Transport()) }

func (p *Provider) browser(transport http.RoundTripper) *Browser {
	jar, _ := cookiejar.New(nil) // fails only with options
	b := &Browser{user: p.User, origin: p.issuer}
	b.client = &http.Client{
		Transport: transport,
		Jar:       jar,
		Timeout:   time.Minute,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if !b.atProvider(r.URL) {
				return http.ErrUseLastResponse
			}
			if len(via) >= 10 {
				return errors.New("too many redirects")
			}
			return nil
		},
	}
	return b
}

// Login signs user in at authURL, as if the URL had been opened in a browser,
// and ends at the redirect's loopback page. An error there is returned with its
// status and text.
func (b *Browser) Login(ctx context.Context, authURL, user string) error {
	callback, err := b.Authorize(ctx, authURL, user)
	if err != nil {
		return err
	}
	return b.Visit(ctx, callback)
}

// Authorize signs user in at authURL and returns the redirect back to the
// client without following it.
func (b *Browser) Authorize(ctx context.Context, authURL, user string) (string, error) {
	last, err := b.walk(ctx, authURL, user, nil)
	if err != nil {
		return "", fmt.Errorf("authorize as %q: %w", user, err)
	}
	if last.redirect == "" {
		return "", fmt.Errorf("authorize as %q: ended at page %q: %s", user, last.title, last.text)
	}
	return last.redirect, nil
}

// Visit navigates to a loopback callback as a browser does.
func (b *Browser) Visit(ctx context.Context, callback string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, callback, nil)
	if err != nil {
		return fmt.Errorf("visit callback: %w", err)
	}
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	resp, err := b.client.Do(r)
	if err != nil {
		return fmt.Errorf("visit callback: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("visit callback: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("visit callback: %s: %s", resp.Status, body)
	}
	return nil
}

// ApproveDevice types userCode into the verification page, signs user in and
// allows the device.
func (b *Browser) ApproveDevice(ctx context.Context, verificationURL, userCode, user string) error {
	return b.device(ctx, verificationURL, userCode, user, "Allow", "Device connected")
}

// DenyDevice does the same and refuses the device.
func (b *Browser) DenyDevice(ctx context.Context, verificationURL, userCode, user string) error {
	return b.device(ctx, verificationURL, userCode, user, "Deny", "Device refused")
}

func (b *Browser) device(ctx context.Context, verificationURL, userCode, user, answer, want string) error {
	last, err := b.walk(ctx, verificationURL, user, map[string]string{"user_code": userCode, "answer": answer})
	if err != nil {
		return fmt.Errorf("device %q as %q: %w", userCode, user, err)
	}
	if last.title != want {
		return fmt.Errorf("device %q as %q: ended at page %q: %s", userCode, user, last.title, last.text)
	}
	return nil
}

// place is where a walk stands: a page, or a redirect that leaves the provider.
type place struct {
	url      *url.URL
	status   int
	title    string
	text     string
	form     *form
	redirect string
}

// walk fills in forms until there is none left, or the way leaves the provider.
func (b *Browser) walk(ctx context.Context, start, user string, answers map[string]string) (*place, error) {
	u, ok := b.user(user)
	if !ok {
		return nil, fmt.Errorf("unknown user %q", user)
	}
	known := map[string]string{"username": u.Login, "password": u.Password, "code": u.Code}
	for k, v := range answers {
		known[k] = v
	}
	at, err := b.fetch(ctx, http.MethodGet, start, nil)
	for step := 0; err == nil && at.redirect == "" && at.form != nil; step++ {
		if at.status != http.StatusOK || step == 10 {
			return nil, fmt.Errorf("page %q, status %d: %s", at.title, at.status, at.text)
		}
		target, perr := at.url.Parse(at.form.action)
		if perr != nil {
			return nil, fmt.Errorf("form action: %w", perr)
		}
		at, err = b.fetch(ctx, http.MethodPost, target.String(), at.form.fill(known))
	}
	return at, err
}

func (b *Browser) fetch(ctx context.Context, method, target string, values url.Values) (*place, error) {
	r, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(values.Encode()))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if !b.atProvider(r.URL) {
		return nil, fmt.Errorf("%s is not at the provider", r.URL.Redacted())
	}
	resp, err := b.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	at := &place{url: resp.Request.URL, status: resp.StatusCode}
	if location, err := resp.Location(); err == nil {
		at.redirect = location.String()
		return at, nil
	}
	doc, err := html.Parse(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read page: %w", err)
	}
	at.read(doc)
	return at, nil
}

func (b *Browser) atProvider(u *url.URL) bool { return u.Scheme+"://"+u.Host == b.origin }

// form is the first form of a page.
type form struct {
	action string
	values url.Values
	button string // value of the first submit button
}

func (f *form) fill(known map[string]string) url.Values {
	values := url.Values{}
	for name, v := range f.values {
		values[name] = v
		if k, ok := known[name]; ok {
			values.Set(name, k)
		}
	}
	values.Set("answer", f.button)
	if answer, ok := known["answer"]; ok && f.button == "Allow" {
		values.Set("answer", answer)
	}
	return values
}

// read collects title, text and form from a page.
func (at *place) read(n *html.Node) {
	attr := func(name string) string {
		for _, a := range n.Attr {
			if a.Key == name {
				return a.Val
			}
		}
		return ""
	}
	switch {
	case n.Type == html.TextNode && n.Parent.Data == "title":
		at.title = n.Data
	case n.Type == html.TextNode && n.Parent.Data != "style":
		at.text = strings.TrimSpace(at.text + " " + strings.TrimSpace(n.Data))
	case n.Type == html.ElementNode && n.Data == "form" && at.form == nil:
		at.form = &form{action: attr("action"), values: url.Values{}}
	case n.Type == html.ElementNode && n.Data == "input" && at.form != nil:
		at.form.values.Set(attr("name"), attr("value"))
	case n.Type == html.ElementNode && n.Data == "button" && at.form != nil && at.form.button == "":
		at.form.button = attr("value")
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		at.read(c)
	}
}
