package agent

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/client/tunnel"
)

func TestHandEncodingIsJSON(t *testing.T) {
	t.Parallel()
	for _, info := range []string{"", `{"a":"b\n"}`, "tab\t nul\x00 esc\x1b \\ \" ü \u2028 😀 \xff end"} {
		args := CredentialArgs{Cluster: "prod", ExecInfo: info}
		want := Request{Protocol: 1, Version: "v1", Binary: `/a "b"/c`, Op: OpCredential, Profile: "p", Parent: 42, Attended: true, Display: true, QR: true, Verbose: true, Environment: &tunnel.Environment{HTTPSProxy: "http://p", NoProxy: info}, Args: args.encode()}
		var got Request
		if err := json.Unmarshal(want.append(nil), &got); err != nil {
			t.Fatalf("%s: %v", want.append(nil), err)
		}
		want.Environment.NoProxy = strings.ToValidUTF8(info, "\ufffd")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
		reflected, err := json.Marshal(args)
		if err != nil {
			t.Fatal(err)
		}
		var a, b CredentialArgs
		if err := json.Unmarshal(got.Args, &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(reflected, &b); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, a); diff != "" {
			t.Errorf("args (-want +got):\n%s", diff)
		}
	}
	var empty Request
	if err := json.Unmarshal((&Request{Op: OpStop}).append(nil), &empty); err != nil || empty.Op != OpStop {
		t.Errorf("%+v %v", empty, err)
	}
}
