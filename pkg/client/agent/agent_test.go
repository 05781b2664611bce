package agent_test

import (
	"context"
	"testing"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/test/idp"
)

func TestLoginAndCredential(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	res := r.login()
	if res.Already || res.Status.User != "alice@example.com" || res.Status.Clusters != 2 {
		t.Errorf("%+v", res.Status)
	}
	if res := r.login(); !res.Already {
		t.Error("logged in twice without being asked to")
	}
	token, err := r.credential(false)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.credential(false)
	if err != nil || again != token {
		t.Errorf("a fresh token was not reused: %v", err)
	}
	var st agent.StatusResult
	if err := r.get(agent.Request{Op: agent.OpStatus}, nil, &st); err != nil || len(st.Sessions) != 1 || st.Sessions[0].Edge != "connected" {
		t.Errorf("%+v %v", st, err)
	}
	_ = context.Background
}
