package impersonate

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTokenFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	now := time.Now()
	token := NewTokenFile(path, func() time.Time { return now })
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want string) {
		t.Helper()
		got, err := token.authorization()
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	if got, err := token.authorization(); err == nil {
		t.Errorf("no file gave %q", got)
	}
	write(" \n")
	now = now.Add(time.Minute)
	if got, err := token.authorization(); err == nil {
		t.Errorf("an empty file gave %q", got)
	}
	write("one\n")
	now = now.Add(time.Minute)
	want("Bearer one")
	write("two")
	want("Bearer one") // not looked at yet
	now = now.Add(tokenRecheck)
	want("Bearer two")
	write("three")
	if !token.reload([]string{"Bearer two"}) {
		t.Error("reload saw no change")
	}
	want("Bearer three")
	if token.reload([]string{"Bearer three"}) {
		t.Error("reload saw a change")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	want("Bearer three") // for the API server to judge
	if s := token.String(); s != "token in "+path {
		t.Error(s)
	}
}

// TestAccount: the account's name is in a service account's token, and in no
// other that could be trusted to be called the same by the API server.
func TestAccount(t *testing.T) {
	t.Parallel()
	token := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig"
	}
	for text, want := range map[string]string{
		token(`{"sub":"system:serviceaccount:zt-system:zt-impersonate","aud":["x"]}`): "system:serviceaccount:zt-system:zt-impersonate",
		token(`{"sub":"somebody"}`): "",
		token(`{}`):                 "",
		token(`[]`):                 "",
		"a.b":                       "",
		"a.%.c":                     "",
		"opaque":                    "",
	} {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file := NewTokenFile(path, time.Now)
		if _, err := file.authorization(); err != nil {
			t.Fatal(err)
		}
		if got := file.Account(); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
