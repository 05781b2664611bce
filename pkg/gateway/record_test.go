package gateway

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/files"
)

// events are the records of some events in the gateway's log.
func (w *whole) events(wanted ...audit.Event) (all []audit.Record) {
	w.t.Helper()
	f, err := os.Open(w.c().Audit.File)
	must(w.t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r audit.Record
		must(w.t, json.Unmarshal(lines.Bytes(), &r))
		for _, event := range wanted {
			if r.Event == event {
				all = append(all, r)
			}
		}
	}
	return all
}

// TestChangesOfTheConfigurationAreRecorded: what was loaded and what was refused,
// with its version, and each revocation that came by it, with its file.
func TestChangesOfTheConfigurationAreRecorded(t *testing.T) {
	t.Parallel()
	var fault error
	w := newWhole(t, time.Second, func(w *whole, c *Config) {
		w.file("config/early.yaml", "apiVersion: kube-zt.io/v1alpha1\nkind: Revocation\nmetadata: {name: early}\nspec: {user: eve}\n")
		c.File = w.file("gateway.yaml", "first")
		c.Parse = func([]byte) (*v1alpha1.GatewayConfiguration, error) { return c.Configuration.DeepCopy(), fault }
	})
	first := w.store.Snapshot().Version
	w.file("config/slip.yaml", "kind: [") // first: the watch looks, too
	w.file("config/late.yaml", "apiVersion: kube-zt.io/v1alpha1\nkind: Revocation\nmetadata: {name: late}\nspec: {user: mallory, reason: a thief}\n"+
		"---\napiVersion: kube-zt.io/v1alpha1\nkind: Device\nmetadata: {name: aaaaaaaaaaaaaaaaaaaa}\nspec: {revoked: true}\n")
	fault = errors.New("gateway.yaml:1: a fault")
	if err := w.Reload(t.Context()); err == nil {
		t.Fatal("no fault")
	}
	must(t, os.Remove(filepath.Join(w.dir, "config", "slip.yaml")))
	fault = nil
	must(t, w.Reload(t.Context()))

	var reloads []string
	for _, r := range w.events(audit.EventReload) {
		reloads = append(reloads, strings.Join([]string{r.Detail["what"], string(r.Decision), r.Version}, " "))
		if (r.Decision == audit.Refused) != (r.Error != "") {
			t.Errorf("%+v", r)
		}
	}
	file := files.Version([]byte("first"))
	issuer := files.Version(w.idp.CAPEM())
	want := []string{
		"objects allow " + first,
		"objects refuse " + first, "configuration refuse " + file, "issuer authority allow " + issuer,
		"objects allow " + w.store.Snapshot().Version, "configuration allow " + file, "issuer authority allow " + issuer,
	}
	if diff := cmp.Diff(want, dedupe(reloads)); diff != "" {
		t.Error(diff)
	}

	revocations := w.store.Snapshot().Revocations
	recorded := w.events(audit.EventRevoked)
	if len(recorded) != 3 || len(revocations) != 3 {
		t.Fatalf("%d revocations, recorded %+v", len(revocations), recorded)
	}
	for i, expected := range []struct{ file, target, message string }{
		{"early.yaml", "user eve", ""}, {"late.yaml", "user mallory", "a thief"}, {"late.yaml", "device aaaaaaaaaaaaaaaaaaaa", "revoked by the administrators"},
	} {
		r := recorded[i]
		want := map[string]string{
			"by": "config", "file": filepath.Join(w.dir, "config", expected.file), "name": revocations[i].Name, "target": expected.target,
			"epoch": revocations[i].Status.Epoch, "durable": "true",
		}
		if diff := cmp.Diff(want, r.Detail); diff != "" || r.Message != expected.message {
			t.Errorf("%s %q", diff, r.Message)
		}
	}
	if recorded[1].User == nil || recorded[1].User.Name != "mallory" || recorded[2].Device != "aaaaaaaaaaaaaaaaaaaa" {
		t.Errorf("%+v", recorded)
	}
}

// dedupe drops what stands twice in a row: the watch and the call may both have
// found a change.
func dedupe(lines []string) (all []string) {
	for i, line := range lines {
		if i == 0 || lines[i-1] != line {
			all = append(all, line)
		}
	}
	return all
}
