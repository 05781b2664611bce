package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// ObserveDevice records what was seen of a device and returns the merged view.
// The first owner stays, unless a manifest names another: ErrOwned for anybody
// else. What was known already costs no write.
func (s *Store) ObserveDevice(ctx context.Context, id wire.DeviceID, seen v1alpha1.DeviceStatus) (v1alpha1.Device, error) {
	if id == "" {
		return v1alpha1.Device{}, errors.New("observe device: no id")
	}
	if seen.FirstSeen.IsZero() {
		seen.FirstSeen = metav1.NewTime(s.now())
	}
	seen.FirstSeen = metav1.NewTime(seen.FirstSeen.UTC().Truncate(time.Second)) // as the journal keeps it
	seen.Revision = 0

	s.mu.Lock()
	w, err := s.observe(id, seen)
	s.mu.Unlock()
	if err != nil {
		return v1alpha1.Device{}, err
	}
	if w != nil {
		if err := w.wait(ctx); err != nil {
			return v1alpha1.Device{}, fmt.Errorf("observe device %s: %w", id, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Two people may have come at once; the disk has judged who was first.
	if err := s.mayOwn(id, seen); err != nil {
		return v1alpha1.Device{}, err
	}
	return s.merged(id), nil
}

// observe enqueues what changes; the caller holds mu.
func (s *Store) observe(id wire.DeviceID, seen v1alpha1.DeviceStatus) (*write, error) {
	if err := s.mayOwn(id, seen); err != nil {
		return nil, err
	}
	known := s.st.Devices[id]
	transfer := known.OwnerSubject != "" && seen.OwnerSubject != "" && !sameOwner(known, seen)
	merged := observe(known, seen, transfer)
	if merged == known {
		return nil, nil
	}
	return s.enqueue(operation{Device: &deviceOperation{ID: id, Seen: seen, Transfer: transfer}})
}

// mayOwn refuses a second owner and a second key; the caller holds mu.
func (s *Store) mayOwn(id wire.DeviceID, seen v1alpha1.DeviceStatus) error {
	known := s.st.Devices[id]
	if known.Thumbprint != "" && seen.Thumbprint != "" && known.Thumbprint != seen.Thumbprint {
		return fmt.Errorf("device %s: another key has this id", id)
	}
	if seen.OwnerSubject == "" {
		return nil
	}
	if wish := s.loaded.wishes[id]; wish != nil && wish.Spec.Owner != "" {
		if wish.Spec.Owner != seen.Owner {
			return fmt.Errorf("device %s: %w", id, ErrOwned)
		}
		return nil
	}
	if known.OwnerSubject != "" && !sameOwner(known, seen) {
		return fmt.Errorf("device %s: %w", id, ErrOwned)
	}
	return nil
}

// Revoke puts spec in force for good and returns the epoch from which on it
// holds. A target that is revoked already keeps its epoch; a change of a
// session's roles is always new, because it speaks of the tokens until now. With
// ErrNotDurable it is in force all the same, in this process.
func (s *Store) Revoke(ctx context.Context, spec v1alpha1.RevocationSpec, by string) (wire.Epoch, error) {
	kind, _, ok := spec.Target()
	if !ok {
		return wire.Epoch{}, errors.New("revoke: exactly one target must be named")
	}
	if len(spec.Roles) > 0 && kind != v1alpha1.RevokedSession {
		return wire.Epoch{}, errors.New("revoke: roles are taken only from a session")
	}
	spec.By = by
	if spec.At.IsZero() {
		spec.At = metav1.NewTime(s.now())
	}
	spec.At = metav1.NewTime(spec.At.UTC().Truncate(time.Second))
	r := &v1alpha1.Revocation{Spec: spec}
	r.APIVersion, r.Kind, r.Name = v1alpha1.GroupVersion, "Revocation", revocationName(&spec)

	s.mu.Lock()
	operations := []operation{{Revoke: r}}
	if isChange(&spec) {
		// Unique however many wait: the sequence they will get is not known yet.
		r.Name += "-" + s.nextChange()
	} else if old := s.st.byTarget[target(&spec)]; old != nil {
		if s.onDisk(old) {
			s.mu.Unlock()
			return epochOf(old), nil
		}
		r, operations = old, nil // waits for the disk with what is in force
	}
	w, err := s.enqueue(operations...)
	s.mu.Unlock()
	if err != nil {
		return wire.Epoch{}, fmt.Errorf("revoke: %w", err)
	}
	if err := w.wait(ctx); err != nil {
		return wire.Epoch{}, fmt.Errorf("revoke: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name, held := s.st.nameFor(r)
	if held {
		return epochOf(s.st.byName[name]), nil
	}
	if isChange(&spec) {
		// Superseded already by a newer change of the same session.
		return s.st.epoch(), nil
	}
	return wire.Epoch{}, fmt.Errorf("revoke: %s is not in force", r.Name)
}

func epochOf(r *v1alpha1.Revocation) (e wire.Epoch) {
	_ = e.UnmarshalText([]byte(r.Status.Epoch)) // written by apply
	return e
}

// nextChange makes a name that no other change has; the caller holds mu.
func (s *Store) nextChange() string {
	s.changes++
	return fmt.Sprintf("%d-%d", s.st.Generation, s.changes)
}

// imports are the revocations that a configuration brings and state does not
// hold: those written as such, and those of devices. late: there are others that
// are in force and not on the disk. The caller holds mu.
func (s *Store) imports(c *Config) (operations []operation, late bool) {
	add := func(file, name string, spec v1alpha1.RevocationSpec) {
		// Forgetting rests on At: a slip in it must not end what takes away now.
		if spec.At.IsZero() || forgettable(&spec) {
			spec.At = metav1.NewTime(s.now())
		}
		spec.At = metav1.NewTime(spec.At.UTC().Truncate(time.Second))
		spec.By = "config"
		r := &v1alpha1.Revocation{Spec: spec}
		r.APIVersion, r.Kind, r.Name = v1alpha1.GroupVersion, "Revocation", name
		if name, held := s.st.nameFor(r); !held {
			operations = append(operations, operation{Revoke: r, file: file})
		} else if !s.onDisk(s.st.byName[name]) {
			late = true
		}
	}
	for _, r := range c.Revocations {
		add(c.origin[r], r.Name, r.Spec)
	}
	for _, d := range c.Devices {
		spec := v1alpha1.RevocationSpec{Device: d.Name, Reason: "revoked by the administrators"}
		if !d.Spec.Revoked {
			continue
		}
		if old := s.st.byTarget[target(&spec)]; old == nil {
			add(c.origin[d], revocationName(&spec), spec)
		} else if !s.onDisk(old) {
			late = true
		}
	}
	return operations, late
}

// UseOnce records hash, or returns ErrUsed. After expires the record may go, so
// what it stands for must have ended by then.
func (s *Store) UseOnce(ctx context.Context, hash string, expires time.Time) error {
	if hash == "" || len(hash) > 256 {
		return errors.New("use once: no hash")
	}
	if !expires.After(s.now()) {
		return errors.New("use once: it has ended already")
	}
	s.mu.Lock()
	if _, used := s.st.Used[hash]; used || s.using[hash] {
		s.mu.Unlock()
		return ErrUsed
	}
	w, err := s.enqueue(operation{Use: &useOperation{Hash: hash, Expires: expires.UTC()}})
	if err == nil {
		s.using[hash] = true
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("use once: %w", err)
	}
	if err := w.wait(ctx); err != nil {
		return fmt.Errorf("use once: %w", err)
	}
	return nil
}

// PutSession writes a session's record, whole.
func (s *Store) PutSession(ctx context.Context, r SessionRecord) error {
	if r.ID == "" {
		return errors.New("put session: no id")
	}
	r = r.clone()
	r.Version = 0 // apply's
	if err := s.commit(ctx, operation{Session: &r}); err != nil {
		return fmt.Errorf("put session: %w", err)
	}
	return nil
}

// Session is one record, also of a session that ended lately.
func (s *Store) Session(id wire.SessionID) (SessionRecord, bool) {
	r := s.st.session(id)
	if r == nil {
		return SessionRecord{}, false
	}
	return r.clone(), true
}

// SessionGroups are the issuer's groups of the person in a session, which the
// caller must not change, and the serial of its latest certificate. It is for
// every request: it copies nothing and waits for no write.
func (s *Store) SessionGroups(id wire.SessionID) (groups []string, serial string, ok bool) {
	r := s.st.session(id)
	if r == nil {
		return nil, "", false
	}
	return r.Groups[:len(r.Groups):len(r.Groups)], r.Serial, true
}

// SessionsOf are all records of a person's sessions, also of those that ended
// lately, oldest first.
func (s *Store) SessionsOf(user wire.User) []SessionRecord {
	now := s.now()
	return s.sessions(func(r *SessionRecord) bool { return r.User.Same(user) && !r.forgotten(now) })
}

// Sessions are all records of sessions that have not ended, oldest first.
func (s *Store) Sessions() []SessionRecord {
	now := s.now()
	return s.sessions(func(r *SessionRecord) bool { return r.Ended.IsZero() && now.Before(r.End) })
}

// sessions are the records that are wanted, oldest first.
func (s *Store) sessions(wanted func(*SessionRecord) bool) []SessionRecord {
	s.mu.Lock()
	var found []SessionRecord
	for _, r := range s.st.Sessions {
		if wanted(r) {
			found = append(found, r.clone())
		}
	}
	s.mu.Unlock()
	slices.SortFunc(found, func(a, b SessionRecord) int {
		if c := a.Issued.Compare(b.Issued); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return found
}
