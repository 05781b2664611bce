package control

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/wire"
)

// put writes records of sessions of one laptop as if they had been issued.
func (r *rig) put(l *laptop, n int) []wire.SessionID {
	r.t.Helper()
	like, _ := r.store.Session(l.cert.Session)
	ids := make([]wire.SessionID, n)
	failed := make(chan error, n)
	for i := range ids {
		ids[i] = wire.SessionID(fmt.Sprintf("session%020d", i))
		record := like
		record.ID = ids[i]
		go func() { failed <- r.store.PutSession(context.WithoutCancel(r.t.Context()), record) }()
	}
	for range ids {
		if err := <-failed; err != nil {
			r.t.Fatal(err)
		}
	}
	return ids
}

// flushes counts the records of the journal: each is one flush of the disk.
func (r *rig) flushes() int {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "state", "journal"))
	if err != nil {
		r.t.Fatal(err)
	}
	n := 0
	for rest := data[bytes.IndexByte(data, '\n')+1:]; len(rest) >= 20; n++ {
		rest = rest[20+binary.LittleEndian.Uint32(rest):]
	}
	return n
}

// Many sessions lose a role at once, and not one after the other.
func TestManySessionsAreSettledTogether(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	const n = 1000
	ids := r.put(r.laptop().login("carol"), n)
	before := r.flushes()
	began := time.Now()
	r.load("objects.yaml", strings.Replace(objects, "groups: [all-admins]", "groups: [others]", 1))
	eventually(t, "every session has lost the role", func() bool {
		for _, id := range ids {
			if record, _ := r.store.Session(id); slices.Contains(record.Roles, "admins") {
				return false
			}
		}
		return true
	})
	took, flushes := time.Since(began), r.flushes()-before
	t.Logf("%d sessions in %v with %d flushes", n, took, flushes)
	if flushes > n/4 {
		t.Errorf("%d flushes for %d sessions", flushes, n)
	}
	changed := map[string]bool{}
	for _, revocation := range r.store.Snapshot().Revocations {
		changed[revocation.Spec.Session] = true
	}
	for _, id := range ids {
		if !changed[string(id)] {
			t.Fatalf("nothing was taken from %s", id)
		}
	}
}

// What is to be taken from a session is not forgotten when only the first of the
// two writes comes to be.
func TestSubtractedBeforeWritten(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("carol")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the caller goes; what was handed to the disk is written
	_ = r.settle(ctx, l.cert.Session, nil)
	eventually(t, "the roles are taken", func() bool {
		return slices.ContainsFunc(r.store.Snapshot().Revocations, func(x *v1alpha1.Revocation) bool { return x.Spec.Session == string(l.cert.Session) })
	})
}

// A token that is being minted while its role is taken away does not keep it,
// though nothing showed the role when the state was held against the session.
func TestRoleLostDuringTheMint(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("carol")
	stale, record := r.store.Snapshot(), func() store.SessionRecord { record, _ := r.store.Session(l.cert.Session); return record }
	without := record()
	without.Roles = nil
	if err := r.store.PutSession(t.Context(), without); err != nil {
		t.Fatal(err)
	}
	r.load("objects.yaml", strings.Replace(objects, "groups: [all-admins]", "groups: [others]", 1))
	p := &peer{identity: l.identity()}
	token, refusal, err := r.mintOn(t.Context(), p, record(), stale, "secret", p.record("token"))
	if refusal != nil {
		t.Fatal(refusal, err)
	}
	facts := r.tokenFacts(l, *token)
	if !slices.Contains(facts.Roles, "admins") {
		t.Fatalf("roles %v: the token is not of the old state", facts.Roles)
	}
	eventually(t, "the token loses its role", func() bool { return slices.Contains(r.registry.Removed(facts), "admins") })
	if slices.Contains(record().Roles, "admins") {
		t.Errorf("the record holds %v", record().Roles)
	}
}
