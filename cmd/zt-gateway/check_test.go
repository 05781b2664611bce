package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

var update = flag.Bool("update", false, "write the goldens anew")

// TestCheck runs the command on directories and holds what it says.
func TestCheck(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/check/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			last := len(archive.Files) - 1
			for _, f := range archive.Files[:last] {
				path := filepath.Join(dir, f.Name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got := strings.ReplaceAll(check(t, dir), dir, "DIR")
			if *update {
				archive.Files[last].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(archive.Files[last].Data), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			left, err := filepath.Glob(filepath.Join(dir, "state"))
			if err != nil || len(left) > 0 {
				t.Errorf("check wrote %v", left)
			}
		})
	}
}

func check(t *testing.T, dir string) string {
	t.Helper()
	streams, _, out, errOut := genericiooptions.NewTestIOStreams()
	err := runCheck(t.Context(), streams, dir, checkFlags{Now: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)})
	if errOut.Len() > 0 {
		t.Errorf("on stderr: %s", errOut)
	}
	if err != nil {
		return out.String() + "error: " + err.Error() + "\n"
	}
	return out.String()
}

func TestCheckExamples(t *testing.T) {
	t.Parallel()
	got := check(t, "../../examples/config")
	// They name clusters by "*", so none has to be there.
	if !strings.HasPrefix(got, "0 clusters, 2 roles, 2 policies, 0 devices, 0 revocations in 2 files, version ") || strings.Contains(got, "error") {
		t.Error(got)
	}
}

func TestCheckCommand(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	cmd := newCheckCommand(genericiooptions.IOStreams{Out: &out, ErrOut: &out})
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs([]string{"../../examples/config", "--config", "testdata/nothing.yaml"})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing.yaml") {
		t.Error(err)
	}
	cmd.SetArgs([]string{filepath.Join(t.TempDir(), "nowhere")})
	if err := cmd.ExecuteContext(t.Context()); err == nil {
		t.Error("a directory that is not there passed")
	}
}
