package impersonate

import (
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
