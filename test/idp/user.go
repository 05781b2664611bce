package idp

import (
	"crypto/rand"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
)

// User is a person whom the provider knows.
type User struct {
	// Login is what the person types: a short name. The e-mail address works too.
	Login string
	// Subject is the "sub" claim: stable, opaque, and never the login.
	Subject string
	Email   string
	Name    string
	Groups  []string
	// Password defaults to Login.
	Password string
	// Code is the second factor. Empty: six random digits made at start.
	Code string
	// Unverified makes email_verified false.
	Unverified bool
	// Claims are laid over the claims of every ID token and userinfo answer of
	// this person, also over registered ones; a nil value removes a claim.
	Claims map[string]any
}

// DefaultUsers are alice of the employees, bob of the contractors and carol,
// who administers everything.
func DefaultUsers() []User {
	return []User{
		{Login: "alice", Subject: "00u-alice-7f3a", Email: "alice@example.com", Name: "Alice Example", Groups: []string{"employees"}},
		{Login: "bob", Subject: "00u-bob-b21c", Email: "bob@example.com", Name: "Bob Example", Groups: []string{"contractors"}},
		{Login: "carol", Subject: "00u-carol-94de", Email: "carol@example.com", Name: "Carol Example", Groups: []string{"all-admins"}},
	}
}

// complete fills in what was left open.
func (u User) complete() (User, error) {
	if u.Login == "" || u.Subject == "" {
		return u, fmt.Errorf("user %q: login and subject are required", u.Login)
	}
	if u.Password == "" {
		u.Password = u.Login
	}
	if u.Code == "" {
		n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
		if err != nil {
			return u, fmt.Errorf("second factor of %q: %w", u.Login, err)
		}
		u.Code = fmt.Sprintf("%06d", n)
	}
	return u, nil
}

// clone is a copy that the caller may keep while the provider goes on.
func (u User) clone() User {
	u.Groups = slices.Clone(u.Groups)
	u.Claims = maps.Clone(u.Claims)
	return u
}

// claims are what the provider says about the person, by the scopes granted.
// Groups always come along, as with providers that configure them per client.
func (u User) claims(scopes []string) map[string]any {
	c := map[string]any{"groups": u.Groups}
	if slices.Contains(scopes, "email") {
		c["email"] = u.Email
		c["email_verified"] = !u.Unverified
	}
	if slices.Contains(scopes, "profile") {
		c["name"] = u.Name
		c["preferred_username"] = u.Login
	}
	return c
}

// overlay lays over on top of base; nil removes.
func overlay(base, over map[string]any) {
	for k, v := range over {
		if v == nil {
			delete(base, k)
			continue
		}
		base[k] = v
	}
}

// user finds a person by login, e-mail or subject.
func (s *storage) user(name string) (User, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.users {
		if name == u.Login || name == u.Subject || strings.EqualFold(name, u.Email) {
			return u.clone(), true
		}
	}
	return User{}, false
}

// edit changes a person in place.
func (s *storage) edit(name string, change func(*User)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.users {
		u := &s.users[i]
		if name == u.Login || name == u.Subject || strings.EqualFold(name, u.Email) {
			change(u)
			return nil
		}
	}
	return fmt.Errorf("unknown user %q", name)
}
