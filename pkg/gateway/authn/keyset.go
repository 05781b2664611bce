package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// fetchCooldown is the least time between two fetches of an issuer's keys,
	// whoever asks for them and however often.
	fetchCooldown = 10 * time.Second
	// fetchTimeout bounds a whole fetch, discovery included.
	fetchTimeout = 10 * time.Second
	// fetchLimit is the largest document of an issuer, in bytes.
	fetchLimit = 1 << 20
	// keysFresh is how old keys may be before they are fetched again without
	// anybody having shown an unknown one: a withdrawn key must go away too.
	keysFresh = 10 * time.Minute
	// keysLimit is how long keys outlive the last good fetch.
	keysLimit = 24 * time.Hour
	// keysMost bounds what a signature may cost to verify: a token without a key id is
	// tried with each key, and a document has room for thousands. How long a modulus
	// may be is go-jose's to say.
	keysMost = 128
)

// keySet holds the keys of one issuer. It fetches when it meets an unknown key,
// one fetch for all who wait, and never loses good keys to a bad answer.
type keySet struct {
	issuer     wire.Issuer
	discovery  string // URL of the discovery document
	client     *http.Client
	now        func() time.Time
	fetched    func(issuer wire.Issuer, at time.Time, err error)
	algorithms []jose.SignatureAlgorithm

	mu     sync.Mutex
	keys   []jose.JSONWebKey
	good   time.Time // of the last good fetch
	tried  time.Time // of the last fetch
	failed error     // of the last fetch
	flight *flight
}

// flight is a fetch under way.
type flight struct{ done chan struct{} }

// notes is what a verification leaves beside its result: the layers between
// would lose it, since they keep only the text of an error.
type notes struct {
	// unreachable: the issuer could not be asked for the key.
	unreachable bool
	// cold: and there has never been a key to judge with.
	cold bool
	// elsewhere: the token names a place to ask for groups.
	elsewhere bool
}

type notesKey struct{}

func withNotes(ctx context.Context) (context.Context, *notes) {
	n := &notes{}
	return context.WithValue(ctx, notesKey{}, n), n
}

// VerifySignature implements go-oidc's KeySet. The payload it returns has no
// "_claim_names": nobody here ever calls a place that a token names.
func (s *keySet) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	n, _ := ctx.Value(notesKey{}).(*notes)
	if n == nil {
		n = &notes{}
	}
	payload, err := verifyWith(s.current(), raw, s.algorithms)
	if errors.Is(err, errUnknownKey) {
		s.refresh(ctx)
		keys := s.current()
		payload, err = verifyWith(keys, raw, s.algorithms)
		if errors.Is(err, errUnknownKey) {
			n.unreachable = s.lastError() != nil
			n.cold = len(keys) == 0
		}
	}
	if err != nil {
		return nil, err
	}
	payload, n.elsewhere, err = without(payload, "_claim_names", "_claim_sources")
	return payload, err
}

// current are the keys that may be used now.
func (s *keySet) current() []jose.JSONWebKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now().Sub(s.good) > keysLimit {
		return nil
	}
	return s.keys
}

func (s *keySet) lastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// stale reports whether the keys should be fetched again unasked.
func (s *keySet) stale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now().Sub(s.good) > keysFresh
}

// refresh fetches the keys, waits for a fetch under way, or does nothing while
// the cool-down runs. The fetch is everybody's who waits for it, so it does not
// end with the request that happened to begin it.
func (s *keySet) refresh(ctx context.Context) {
	s.mu.Lock()
	if f := s.flight; f != nil {
		s.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
		}
		return
	}
	now := s.now()
	if !s.tried.IsZero() && now.Sub(s.tried) < fetchCooldown {
		s.mu.Unlock()
		return
	}
	f := &flight{done: make(chan struct{})}
	s.flight, s.tried = f, now
	s.mu.Unlock()

	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	keys, err := s.fetch(detached)

	s.mu.Lock()
	if err == nil {
		s.keys, s.good = keys, now
	}
	s.failed, s.flight = err, nil
	s.mu.Unlock()
	close(f.done)
	s.fetched(s.issuer, now, err)
}

// fetch reads the discovery document and the key set that it names.
func (s *keySet) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := s.get(ctx, s.discovery, &discovery); err != nil {
		return nil, fmt.Errorf("discovery of %q: %v", s.issuer, err)
	}
	if discovery.Issuer != string(s.issuer) {
		return nil, fmt.Errorf("discovery of %q: it calls itself %q", s.issuer, clip(discovery.Issuer))
	}
	if u, err := url.Parse(discovery.Keys); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("discovery of %q: its jwks_uri is no https URL", s.issuer)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := s.get(ctx, discovery.Keys, &set); err != nil {
		return nil, fmt.Errorf("keys of %q: %v", s.issuer, err)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		// A key of a kind that we do not know is no reason to lose the others,
		// and one that is not public is of no use here.
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil && key.IsPublic() && key.Valid() && key.Use != "enc" {
			keys = append(keys, key)
		}
		if len(keys) == keysMost {
			break
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("keys of %q: there is none to verify signatures with", s.issuer)
	}
	return keys, nil
}

func (s *keySet) get(ctx context.Context, address string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, fetchLimit+1))
	switch {
	case err != nil:
		return err
	case len(body) > fetchLimit:
		return errors.New("answered more than 1 MiB")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errors.New("answered something that is not JSON")
	}
	return nil
}
