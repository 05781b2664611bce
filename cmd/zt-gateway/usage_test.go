package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kube-zt/zt/pkg/gateway/store"
)

func runLine(ctx context.Context, args ...string) error {
	root := newRoot(genericiooptions.IOStreams{Out: io.Discard, ErrOut: io.Discard})
	root.SetArgs(args)
	root.SetOut(io.Discard)
	return root.ExecuteContext(ctx)
}

// Whatever is wrong with a command line, the next one is named.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ line, want string }{
		{"chek", `"chek" is not a command of zt-gateway` + "\nhint: zt-gateway check"},
		{"audit", `"audit" is not a command of zt-gateway` + "\nhint: zt-gateway --help"},
		{"check", "DIR is missing\nhint: zt-gateway check DIR"},
		{"check a b", `"b" is one argument too many` + "\nhint: zt-gateway check DIR"},
		{"version x", `"x" is one argument too many` + "\nhint: zt-gateway version"},
		{"init --domain a.b DIR", `required flag(s) "client-id", "issuer" not set` + "\nhint: " + initUse},
		{"serve", `required flag(s) "config" not set` + "\nhint: zt-gateway serve --config FILE"},
		{"serve --conf x", "unknown flag: --conf\nhint: zt-gateway serve --help"},
		{"serve --config /nowhere/gateway.yaml", "open /nowhere/gateway.yaml: no such file or directory\nhint: " + initUse},
		{"rbac", `required flag(s) "config" not set` + "\nhint: zt-gateway rbac --config DIR"},
		{"rbac --config /nowhere", "lstat /nowhere: no such file or directory\nhint: " + initUse},
	} {
		t.Run(tc.line, func(t *testing.T) {
			t.Parallel()
			if err := runLine(t.Context(), strings.Fields(tc.line)...); err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
	for _, line := range []string{"", "--help", "help", "version"} {
		if err := runLine(t.Context(), strings.Fields(line)...); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// What init has written does not start outside a cluster, and the error says why:
// check finds nothing wrong there.
func TestServeOutsideACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	dir := filepath.Join(t.TempDir(), "zt")
	if err := runLine(t.Context(), "init", dir, "--domain", "zt.test", "--issuer", "https://idp.test", "--client-id", "zt", "--listen", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := runLine(t.Context(), "check", dir); err != nil {
		t.Error(err)
	}
	want := `cluster "example": inCluster is set, but this is no pod: KUBERNETES_SERVICE_HOST is empty` +
		"\nhint: run it there, or write url, certificateAuthorityFile and tokenFile instead of inCluster into " + filepath.Join(dir, "config")
	if err := runLine(t.Context(), "serve", "--config", filepath.Join(dir, "gateway.yaml")); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestWayOut(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, inUse := net.Listen("tcp", taken.Addr().String())
	for _, tc := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("listen: %w", inUse), "end what listens there, or write another address into gateway.yaml"},
		{fmt.Errorf("state: %w", store.ErrLocked), "end that process, or begin another directory: " + initUse},
		{io.ErrUnexpectedEOF, "zt-gateway check d/config"},
	} {
		if got := wayOut(tc.err, "gateway.yaml", "d"); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.err, got, tc.want)
		}
	}
}
