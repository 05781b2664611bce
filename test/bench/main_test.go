package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		only string
		want []string // nil: an error
	}{
		{"get", []string{"get"}},
		{"wan,get", []string{"wan", "get"}},
		{"gets", nil},
		{"get,", nil},
	} {
		chosen, err := choose(test.only)
		var got []string
		for _, s := range chosen {
			got = append(got, s.name)
		}
		if diff := cmp.Diff(test.want, got); diff != "" || (err != nil) != (test.want == nil) {
			t.Errorf("%q: %v\n%s", test.only, err, diff)
		}
	}
	if all, err := choose(""); err != nil || len(all) != len(sections) {
		t.Errorf("all: %d, %v", len(all), err)
	}
}

func TestRefusedFlags(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"-only nothing", "-o xml", "-unknown"} {
		var out, diag strings.Builder
		if err := run(t.Context(), strings.Fields(args), &out, &diag); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

func TestSeatFlags(t *testing.T) {
	t.Parallel()
	s := &seat{path: "kubectl", flags: []string{"--context=prod", "--namespace=bench"}}
	if diff := cmp.Diff([]string{"kubectl", "--context=prod", "--namespace=bench", "get", "pod"}, s.args("get", "pod")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"--kube-context=prod", "--namespace=bench"}, s.helmFlags()); diff != "" {
		t.Error(diff)
	}
	if got := s.context("other"); got != "prod" {
		t.Errorf("context %q", got)
	}
	if got := (&seat{}).context("other"); got != "other" {
		t.Errorf("context without a flag %q", got)
	}
}
