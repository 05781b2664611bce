package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// V077: whatever the other side calls itself, a terminal sees text only, and a
// program gets back what was meant.
func TestStructuredOutputIsHarmless(t *testing.T) {
	t.Parallel()
	want := map[string]string{}
	for _, hostile := range []string{
		"plain", "a\u202eb", "\u2066isolate", "\u009b31m", "esc\x1b[31m", "zero\u200bwidth", "two\nlines\u202e", "tag\U000e0041", "\ufeffmark", "äöü 東京 😀",
		"line\u2028end", "\u00ad", "- a: [\u202e", "yes", "12",
	} {
		want["k"+hostile] = hostile
	}
	for _, format := range []string{"json", "yaml"} {
		var out bytes.Buffer
		if err := printStructured(&out, format, want); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s: %U in\n%q", format, r, out.String())
				break
			}
		}
		got := map[string]string{}
		decode := yaml.Unmarshal
		if format == "json" {
			decode = json.Unmarshal
		}
		if err := decode(out.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v\n%s", format, err, out.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", format, diff)
		}
	}
}
