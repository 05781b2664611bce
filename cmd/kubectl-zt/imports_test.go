package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Every kubectl starts this program and waits for it, so each import is paid for
// by everybody, every time (DESIGN §2, figures in docs/performance.md).
func TestImports(t *testing.T) {
	t.Parallel()
	forbidden := map[string]string{
		"k8s.io/cli-runtime/pkg/genericclioptions":             "5 ms of package initialisation and 24 MB",
		"k8s.io/cli-runtime/pkg/resource":                      "5 ms and 24 MB",
		"k8s.io/client-go/kubernetes":                          "5 ms: every API group's types are registered",
		"k8s.io/client-go/tools/clientcmd":                     "1.2 ms; contexts are written without decoding somebody's file",
		"k8s.io/client-go/pkg/apis":                            "1 ms for one document of five fields",
		"k8s.io/api/":                                          "API types register themselves",
		"k8s.io/apiserver":                                     "the gateway's, 25 ms",
		"k8s.io/kubectl":                                       "29 ms and 57 MB",
		"sigs.k8s.io/kustomize":                                "imports plugin, which turns dead-code elimination off",
		"github.com/prometheus":                                "metrics are the gateway's",
		"google.golang.org/grpc":                               "nothing speaks it",
		"github.com/google/cel-go":                             "policies are decided by the gateway",
		"cel.dev/":                                             "policies are decided by the gateway",
		"go.opentelemetry.io":                                  "traces are the gateway's",
		"github.com/zitadel":                                   "the test provider",
		"github.com/kube-zt/zt/pkg/gateway":                    "client and gateway never import each other",
		"github.com/kube-zt/zt/test":                           "nothing imports test",
		"github.com/kube-zt/zt/pkg/client/session/gatewaytest": "a gateway for tests",
		"testing": "a shipped binary has no test flags",
		"plugin":  "turns dead-code elimination off",
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for prefix, why := range forbidden {
			if dep == prefix || strings.HasPrefix(dep, strings.TrimSuffix(prefix, "/")+"/") {
				t.Errorf("%s is imported: %s", dep, why)
			}
		}
	}
}
