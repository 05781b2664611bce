package store

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// state is what the gateway itself has seen and decided. It changes only by
// apply, in the order of the journal, so that reading the journal again makes
// the same state.
type state struct {
	Generation uint64 `json:"generation"`
	Sequence   uint64 `json:"sequence"`
	// Devices by id; Revision is the sequence of the last change.
	Devices map[wire.DeviceID]v1alpha1.DeviceStatus `json:"devices,omitempty"`
	// Revocations, oldest first.
	Revocations []*v1alpha1.Revocation `json:"revocations,omitempty"`
	// Sessions are exchanged and never changed. Every request reads one, so that
	// has a lock of its own: the store's is held while others encode what they write.
	Sessions map[wire.SessionID]*SessionRecord `json:"sessions,omitempty"`
	reading  sync.RWMutex                      // held, beside the store's lock, to write Sessions
	// Used are the hashes of UseOnce and when each may be forgotten.
	Used map[string]time.Time `json:"used,omitempty"`

	// Revocations by name and by what they name.
	byName, byTarget map[string]*v1alpha1.Revocation
	// changes of each session's roles.
	changes map[string][]*v1alpha1.Revocation
}

// operation is one change; exactly one exported field is set.
type operation struct {
	// Open begins the life of a process with a new generation.
	Open    *openOperation       `json:"open,omitempty"`
	Device  *deviceOperation     `json:"device,omitempty"`
	Revoke  *v1alpha1.Revocation `json:"revoke,omitempty"`
	Session *SessionRecord       `json:"session,omitempty"`
	Use     *useOperation        `json:"use,omitempty"`

	// file of config/ that says it, if any; for the log alone.
	file string
}

type openOperation struct {
	Generation uint64 `json:"generation"`
}

type deviceOperation struct {
	ID   wire.DeviceID         `json:"id"`
	Seen v1alpha1.DeviceStatus `json:"seen"`
	// Transfer: a manifest gives the device to the person seen.
	Transfer bool `json:"transfer,omitempty"`
}

type useOperation struct {
	Hash    string    `json:"hash"`
	Expires time.Time `json:"expires"`
}

func newState() *state {
	s := &state{
		Devices:  map[wire.DeviceID]v1alpha1.DeviceStatus{},
		Sessions: map[wire.SessionID]*SessionRecord{},
		Used:     map[string]time.Time{},
	}
	s.setRevocations(nil)
	return s
}

func (s *state) epoch() wire.Epoch {
	return wire.Epoch{Generation: s.Generation, Sequence: s.Sequence}
}

// apply makes one change and reports whether snapshots show it. It cannot fail
// and asks no clock: what may be refused was refused before it was written.
func (s *state) apply(o operation) (shown bool) {
	s.Sequence++
	switch {
	case o.Open != nil:
		s.Generation = o.Open.Generation
	case o.Device != nil:
		merged := observe(s.Devices[o.Device.ID], o.Device.Seen, o.Device.Transfer)
		merged.Revision = int64(s.Sequence)
		s.Devices[o.Device.ID] = merged
		return true
	case o.Revoke != nil:
		return s.revoke(o.Revoke)
	case o.Session != nil:
		r := *o.Session
		r.Version = s.Sequence
		s.reading.Lock()
		s.Sessions[r.ID] = &r
		s.reading.Unlock()
	case o.Use != nil:
		s.Used[o.Use.Hash] = o.Use.Expires
	}
	return false
}

// revoke adds what is not in force yet. Names are given once: create-only. A
// name that stands for something else already must not swallow a revocation.
func (s *state) revoke(r *v1alpha1.Revocation) (new bool) {
	name, held := s.nameFor(r)
	if held {
		return false
	}
	added := r.DeepCopy()
	added.Name = name
	added.Status.Epoch = s.epoch().String()
	added.Status.People = s.people(added.Spec.User)
	if isChange(&added.Spec) {
		s.supersede(added)
	}
	// Snapshots that share the array do not see beyond their own length.
	s.Revocations = append(s.Revocations, added)
	s.index(added)
	return true
}

// supersede drops the changes of a session that a newer one includes. Thousands
// of sessions change at once when a role does, so no index is made anew for it.
func (s *state) supersede(newer *v1alpha1.Revocation) {
	var gone []*v1alpha1.Revocation // one, as a rule
	s.changes[newer.Spec.Session] = slices.DeleteFunc(s.changes[newer.Spec.Session], func(old *v1alpha1.Revocation) bool {
		if !includes(newer.Spec.Roles, old.Spec.Roles) {
			return false
		}
		gone = append(gone, old)
		return true
	})
	if len(gone) == 0 {
		return
	}
	left := make([]*v1alpha1.Revocation, 0, len(s.Revocations)+1) // snapshots keep the old array
	for _, r := range s.Revocations {
		if !slices.Contains(gone, r) {
			left = append(left, r)
			continue
		}
		delete(s.byName, r.Name)
		if key := target(&r.Spec); s.byTarget[key] == r {
			delete(s.byTarget, key)
		}
	}
	s.Revocations = left
}

// nameFor is r's name, or, where another target has that name, one that r has
// to itself. held: it is in force under it already.
func (s *state) nameFor(r *v1alpha1.Revocation) (name string, held bool) {
	name = r.Name
	for range 2 {
		old := s.byName[name]
		if old == nil {
			return name, false
		}
		if target(&old.Spec) == target(&r.Spec) {
			return name, true
		}
		name = r.Name[:min(len(r.Name), 180)] + "-" + digest(target(&r.Spec))
	}
	// Two targets of one SHA-256; a name that stands twice still denies.
	return name, false
}

// people are those who have this name in what is known of sessions and devices.
func (s *state) people(name string) []v1alpha1.RevokedPerson {
	if name == "" {
		return nil
	}
	var found []v1alpha1.RevokedPerson
	for _, r := range s.Sessions {
		if string(r.User.Name) == name {
			found = append(found, v1alpha1.RevokedPerson{Issuer: string(r.User.Issuer), Subject: string(r.User.Subject)})
		}
	}
	for _, d := range s.Devices {
		if d.Owner == name && d.OwnerSubject != "" {
			found = append(found, v1alpha1.RevokedPerson{Issuer: d.OwnerIssuer, Subject: d.OwnerSubject})
		}
	}
	slices.SortFunc(found, func(a, b v1alpha1.RevokedPerson) int {
		return cmp.Or(strings.Compare(a.Issuer, b.Issuer), strings.Compare(a.Subject, b.Subject))
	})
	return slices.Compact(found)
}

// setRevocations replaces the list; snapshots keep the old one.
func (s *state) setRevocations(list []*v1alpha1.Revocation) {
	s.Revocations = list
	s.byName = make(map[string]*v1alpha1.Revocation, len(list))
	s.byTarget = make(map[string]*v1alpha1.Revocation, len(list))
	s.changes = map[string][]*v1alpha1.Revocation{}
	for _, r := range list {
		s.index(r)
	}
}

func (s *state) index(r *v1alpha1.Revocation) {
	s.byName[r.Name] = r
	if key := target(&r.Spec); s.byTarget[key] == nil {
		s.byTarget[key] = r
	}
	if isChange(&r.Spec) {
		s.changes[r.Spec.Session] = append(s.changes[r.Spec.Session], r)
	}
}

func isChange(s *v1alpha1.RevocationSpec) bool { return s.Session != "" && len(s.Roles) > 0 }

func includes(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// target is the same text for revocations of the same thing.
func target(spec *v1alpha1.RevocationSpec) string {
	kind, value, _ := spec.Target()
	return fmt.Sprintf("%s %q %q", kind, value, spec.Roles)
}

// revocationName is the same for the same target.
func revocationName(spec *v1alpha1.RevocationSpec) string {
	kind, value, _ := spec.Target()
	return kind + "-" + digest(value)
}

func digest(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}

const (
	// A session's number is random and never given again; after the longest
	// session and the longest certificate nothing can show it any more.
	keepSession = (7*24 + 12 + 12) * time.Hour
	// Used hashes stay a little, so that a clock that is set back opens nothing.
	keepUsed = time.Hour
	// Ended sessions stay for those who look.
	keepRecord = 24 * time.Hour
)

// expire forgets what can have no meaning any more. Revocations of people,
// groups, devices, roles and clusters stay until they are lifted.
func (s *state) expire(now time.Time) {
	s.setRevocations(slices.DeleteFunc(slices.Clone(s.Revocations), func(r *v1alpha1.Revocation) bool {
		return forgettable(&r.Spec) && now.After(r.Spec.At.Add(keepSession))
	}))
	for hash, expires := range s.Used {
		if now.After(expires.Add(keepUsed)) {
			delete(s.Used, hash)
		}
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	for id, r := range s.Sessions {
		if r.forgotten(now) {
			delete(s.Sessions, id)
		}
	}
}

// session is one record, nil where there is none. It does not wait for the
// store's lock.
func (s *state) session(id wire.SessionID) *SessionRecord {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return s.Sessions[id]
}

// forgettable: what it names ends by itself, keepSession after it was revoked.
func forgettable(spec *v1alpha1.RevocationSpec) bool {
	kind, _, _ := spec.Target()
	return kind == v1alpha1.RevokedSession || kind == v1alpha1.RevokedCertificate
}

// The snapshot file is a line "zt-state 1 LENGTH SHA256" and the state as JSON.
const (
	snapshotName  = "snapshot"
	snapshotMagic = "zt-state 1 "
)

func (s *state) save(dir string) (size int64, err error) {
	body, err := json.Marshal(s)
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256(body)
	data := fmt.Appendf(nil, "%s%d %x\n", snapshotMagic, len(body), sum)
	data = append(data, body...)
	return int64(len(data)), writeFile(filepath.Join(dir, snapshotName), data)
}

func loadState(dir string) (s *state, size int64, err error) {
	path := filepath.Join(dir, snapshotName)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return newState(), 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	line, body, _ := bytes.Cut(data, []byte("\n"))
	rest, ok := strings.CutPrefix(string(line), snapshotMagic)
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w: it does not begin with %q; it may be of a newer version", path, errDamaged, snapshotMagic)
	}
	length, sum, _ := strings.Cut(rest, " ")
	want := sha256.Sum256(body)
	if length != strconv.Itoa(len(body)) || sum != hex.EncodeToString(want[:]) {
		return nil, 0, fmt.Errorf("%s: %w: its content does not match its check sum", path, errDamaged)
	}
	s = newState()
	if err := strict(body, s); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	s.setRevocations(s.Revocations)
	return s, int64(len(data)), nil
}

// replay applies the journal's records that the snapshot does not hold yet.
func (s *state) replay(records []record) error {
	for _, r := range records {
		var operations []operation
		if err := strict(r.payload, &operations); err != nil {
			return fmt.Errorf("record %d of the journal: %w; it may be of a newer version", r.sequence, err)
		}
		if r.sequence <= s.Sequence {
			continue // the crash came between writing the snapshot and emptying the journal
		}
		if r.sequence != s.Sequence+uint64(len(operations)) {
			return fmt.Errorf("journal: %w: record %d follows on %d", errDamaged, r.sequence, s.Sequence)
		}
		for _, o := range operations {
			s.apply(o)
		}
	}
	return nil
}

// strict: a field that this version does not know would be lost at the next
// snapshot, so it is not read over.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
