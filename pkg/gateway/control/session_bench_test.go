package control

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// withSession is as much of Control as Facts needs, and a session of a person in
// many groups.
func withSession(t testing.TB) (*Control, trust.Identity) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	id := trust.Identity{Session: "s", Serial: "1", User: wire.User{Issuer: "https://idp", Subject: "1", Name: "alice"}}
	record := store.SessionRecord{ID: id.Session, User: id.User, Serial: id.Serial, End: time.Now().Add(time.Hour)}
	for i := range 200 {
		record.Groups = append(record.Groups, fmt.Sprint("group-", i))
	}
	if err := s.PutSession(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	return &Control{o: Options{Store: s}}, id
}

// What every request asks must not copy a person's groups.
func TestFactsDoNotAllocate(t *testing.T) {
	c, id := withSession(t)
	if f := c.Facts(id); len(f.Groups) != 200 {
		t.Fatalf("%d groups", len(f.Groups))
	}
	if n := testing.AllocsPerRun(100, func() { c.Facts(id) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFacts(b *testing.B) {
	c, id := withSession(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Facts(id)
		}
	})
}
