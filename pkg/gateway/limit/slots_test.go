package limit

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	s := NewSlots(func() int { return 3 }, func(key string) int {
		if key == "site" {
			return 0
		}
		return 2
	})
	a, ok := s.Enter("a", "site")
	if !ok {
		t.Fatal("the first is refused")
	}
	if _, ok := s.Enter("a", "site"); !ok {
		t.Error("the second of a is refused")
	}
	if _, ok := s.Enter("a", "site"); ok {
		t.Error("a third of a")
	}
	if _, ok := s.Enter("b", "a"); ok {
		t.Error("a third of a in second place")
	}
	if _, ok := s.Enter("b", "site"); !ok {
		t.Error("b is refused, or a refusal has taken something")
	}
	if _, ok := s.Enter("c"); ok {
		t.Error("a fourth in all")
	}
	a()
	a()
	if n := s.Open(); n != 2 {
		t.Errorf("%d open, want 2", n)
	}
	if _, ok := s.Enter("a"); !ok {
		t.Error("what was given back is not there")
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string][]string{
		"192.0.2.7":            {"192.0.2.7/32"},
		"::ffff:192.0.2.7":     {"192.0.2.7/32"},
		"2001:db8:1:2:3:4:5:6": {"2001:db8:1:2::/64", "2001:db8:1::/48"},
		"fe80::1%eth0":         {"fe80::/64", "fe80::/48"},
		"":                     {"invalid Prefix"},
	} {
		parsed, _ := netip.ParseAddr(addr)
		var got []string
		for i, p := range Sources(parsed) {
			got = append(got, p.String())
			if IsSite(p) != (i == 1) {
				t.Errorf("%s: is a site: %t", p, IsSite(p))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", addr, diff)
		}
	}
}
