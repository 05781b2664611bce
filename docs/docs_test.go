// Package docs holds no code: its tests hold the documents against what they
// describe.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// TestConfigurationTable demands a table row for every field that a person can
// set, and no row for one that he cannot.
func TestConfigurationTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for kind, fields := range map[string][]string{
		"GatewayConfiguration": paths(reflect.TypeFor[v1alpha1.GatewayConfiguration](), ""),
		"TargetCluster":        paths(reflect.TypeFor[v1alpha1.TargetClusterSpec](), "spec."),
		"AccessRole":           paths(reflect.TypeFor[v1alpha1.AccessRoleSpec](), "spec."),
		"AccessPolicy":         paths(reflect.TypeFor[v1alpha1.AccessPolicySpec](), "spec."),
		"Device":               paths(reflect.TypeFor[v1alpha1.DeviceSpec](), "spec."),
		"Revocation":           paths(reflect.TypeFor[v1alpha1.RevocationSpec](), "spec."),
	} {
		documented := rows(section(string(text), "## "+kind))
		for _, field := range fields {
			if !documented[field] {
				t.Errorf("%s: %s has no row in configuration.md", kind, field)
			}
			delete(documented, field)
		}
		for field := range documented {
			t.Errorf("%s: configuration.md has a row for %s, which does not exist", kind, field)
		}
	}
}

// paths are the dotted names of the leaves that YAML may hold.
func paths(typ reflect.Type, prefix string) []string {
	var all []string
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			continue // the type's own apiVersion and kind
		}
		ft := field.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch {
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			all = append(all, paths(ft.Elem(), prefix+name+"[].")...)
		case ft.Kind() == reflect.Struct && ft.PkgPath() == reflect.TypeFor[v1alpha1.TargetCluster]().PkgPath():
			all = append(all, paths(ft, prefix+name+".")...)
		default:
			all = append(all, prefix+name)
		}
	}
	return all
}

func section(text, heading string) string {
	_, after, _ := strings.Cut(text, heading+"\n")
	body, _, _ := strings.Cut(after, "\n## ")
	return body
}

func rows(section string) map[string]bool {
	found := map[string]bool{}
	for line := range strings.Lines(section) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			found[name] = true
		}
	}
	return found
}

// TestObservabilityTables demands a row for every metric and audit event in the
// code, and no other.
func TestObservabilityTables(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("observability.md")
	if err != nil {
		t.Fatal(err)
	}
	for heading, want := range map[string][]string{
		"## Metrics": names(t, "../pkg/gateway/metrics/metrics.go", `(?:counter|gauge)\("([a-z_]+)"|Name: "([a-z_]+)"`, "zt_"),
		"## The log of intents, outcomes and events": names(t, "../pkg/gateway/audit/record.go", `Event = "([a-z_]+)"`, ""),
	} {
		documented := rows(section(string(text), heading))
		for _, name := range want {
			if !documented[name] {
				t.Errorf("%s has no row in observability.md", name)
			}
			delete(documented, name)
		}
		for name := range documented {
			t.Errorf("observability.md has a row for %s, which does not exist", name)
		}
	}
}

func names(t *testing.T, file, pattern, prefix string) []string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1) {
		found = append(found, prefix+strings.Join(match[1:], ""))
	}
	if len(found) == 0 {
		t.Fatalf("nothing in %s matches %s", file, pattern)
	}
	return found
}

// TestLaptopTables demands a row for every environment variable that the client
// reads and every code that it ends with, and no other.
func TestLaptopTables(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	variables := regexp.MustCompile(`(?:[eE]nv|Getenv)\("([A-Z_]+)"\)|"(SSH_[A-Z]+)"`)
	read := map[string]bool{"HTTPS_PROXY": true, "NO_PROXY": true} // by golang.org/x/net/http/httpproxy
	for _, root := range []string{"../pkg/client", "../cmd/kubectl-zt"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, match := range variables.FindAllStringSubmatch(string(source), -1) {
				read[match[1]+match[2]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	codes := map[string]bool{"0": true}
	for _, code := range names(t, "../pkg/client/fault/fault.go", `Exit\s+= (\d+)`, "") {
		codes[code] = true
	}
	for heading, want := range map[string]map[string]bool{"## The laptop": read, "## Exit codes": codes} {
		if diff := cmp.Diff(want, rows(section(string(text), heading))); diff != "" {
			t.Errorf("%s in configuration.md (-code +rows):\n%s", heading, diff)
		}
	}
}
