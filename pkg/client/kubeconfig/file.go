package kubeconfig

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
)

const (
	// maxFile is more than any kubeconfig that kubectl could stand, in bytes.
	maxFile = 32 << 20
	// lockLimit is how long another writer is waited for; one takes milliseconds.
	lockLimit = 10 * time.Second
	// elsewhere is the way out where a file cannot be had.
	elsewhere = "use --file to write elsewhere"
)

// Options of an Update.
type Options struct {
	// Current makes that entry's context current; empty leaves it to the file.
	Current string
	// Overwrite replaces zt's entries whole, the person's changes in them too,
	// after a backup.
	Overwrite bool
	// Now names the backup.
	Now time.Time
}

// Result of an Update or Remove.
type Result struct {
	Changed bool
	Backup  string // path, when one was made
	// Contexts are the names under which the entries stand, by Host.
	Contexts map[string]string
	// Current is the file's current context afterwards.
	Current string
}

// Update brings entries into the file at path, which it creates 0600. Entries of
// the same profile stay where the person has them; everything else is untouched.
func Update(ctx context.Context, path string, entries []Entry, o Options) (Result, error) {
	var res Result
	err := rewrite(ctx, path, o.Overwrite, o.Now, &res, func(d *document, before []byte) (string, error) {
		return update(d, before, entries, o, &res)
	})
	return res, err
}

func update(d *document, before []byte, entries []Entry, o Options, res *Result) (string, error) {
	res.Contexts = map[string]string{}
	mine := map[string][]string{}
	fresh := d.root == nil && len(entries) > 0
	if fresh {
		d.edits = append(d.edits, edit{d.end(), d.end(), "apiVersion: v1\nkind: Config\n"})
	}
	put := func(key, name string, change func(node) bool) error {
		mine[key] = append(mine[key], name)
		return d.put(key, name, o.Overwrite, change)
	}
	for _, e := range entries {
		name := d.contextName(e)
		if err := d.foreign(e, name); err != nil {
			return "", err
		}
		res.Contexts[e.Host] = name
		if err := errors.Join(
			put("clusters", e.Host, e.setCluster), put("users", e.Host, e.setUser), put("contexts", name, e.setContext),
		); err != nil {
			return "", err
		}
	}
	var scalars []string
	if name := res.Contexts[o.Current]; name != "" {
		d.setScalar("current-context", name)
		scalars = append(scalars, "current-context")
	}
	if fresh {
		scalars = append(scalars, "apiVersion", "kind")
	}
	after := d.text()
	if err := unchanged(before, []byte(after), mine, scalars); err != nil {
		return "", broken(d.name, "%v", err)
	}
	return after, present(d.name, after, mine)
}

// contextName is the cluster's name, unless somebody else's context has it.
func (d *document) contextName(e Entry) string {
	items, _ := d.items("contexts")
	for _, name := range []string{e.Context, e.Host} {
		if c := lookup(named(items, name), "context"); c != nil {
			if u := lookup(c, "user"); u != nil && u.Value == e.Host {
				return name
			}
		}
	}
	if named(items, e.Context) == nil {
		return e.Context
	}
	return e.Host
}

// foreign refuses to write e where its names belong to somebody else: the person,
// or another profile of the same domain. --overwrite does not change that, for it
// speaks of zt's own entries.
func (d *document) foreign(e Entry, context string) error {
	taken := func(list, name string) error {
		return fault.New(fault.ExitFailed, "rename that entry, or write elsewhere: kubectl zt kubeconfig --file FILE",
			"%s is left as it is: its %s %q is not of zt's profile %q", d.name, list, name, e.Profile)
	}
	users, _ := d.items("users")
	user := named(users, e.Host)
	mine := user != nil && ownedBy(user) == e.Profile
	if user != nil && !mine {
		return taken("user", e.Host)
	}
	clusters, _ := d.items("clusters")
	if c := named(clusters, e.Host); c != nil && !mine && proxiedFor(c) != e.Profile {
		return taken("cluster", e.Host)
	}
	contexts, _ := d.items("contexts")
	if c := named(contexts, context); c != nil {
		if u := lookup(lookup(c, "context"), "user"); u == nil || u.Value != e.Host {
			return taken("context", context)
		}
	}
	return nil
}

// Remove takes every entry of a profile out of the file: users that run
// kubectl-zt for it, the contexts of those users and their clusters. A file that
// is then empty is deleted. A missing file is fine.
func Remove(ctx context.Context, path, profile string) (Result, error) {
	var res Result
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return res, nil
	}
	err := rewrite(ctx, path, false, time.Time{}, &res, func(d *document, before []byte) (string, error) {
		return d.without(before, d.ownedBy(profile, func(string) bool { return true }))
	})
	return res, err
}

// without is the file's text once the items of gone have left it.
func (d *document) without(before []byte, gone map[string][]string) (string, error) {
	for _, key := range []string{"clusters", "users", "contexts"} {
		d.remove(key, gone[key])
	}
	scalars := []string{}
	if cur := lookup(d.root, "current-context"); cur != nil && slices.Contains(gone["contexts"], cur.Value) {
		d.setScalar("current-context", "")
		scalars = append(scalars, "current-context")
	}
	after := d.text()
	if err := unchanged(before, []byte(after), gone, scalars); err != nil {
		return "", broken(d.name, "%v", err)
	}
	return after, nil
}

// ownedBy names a profile's items per list, those of the users that match.
func (d *document) ownedBy(profile string, match func(user string) bool) map[string][]string {
	gone := map[string][]string{}
	users, _ := d.items("users")
	for _, u := range users {
		if ownedBy(u) == profile && match(lookup(u, "name").Value) {
			gone["users"] = append(gone["users"], lookup(u, "name").Value)
		}
	}
	contexts, _ := d.items("contexts")
	kept := map[string]bool{}
	for _, c := range contexts {
		user, cluster := lookup(lookup(c, "context"), "user"), lookup(lookup(c, "context"), "cluster")
		switch {
		case user != nil && slices.Contains(gone["users"], user.Value):
			gone["contexts"] = append(gone["contexts"], lookup(c, "name").Value)
			if cluster != nil && cluster.Value == user.Value {
				gone["clusters"] = append(gone["clusters"], cluster.Value)
			}
		case cluster != nil:
			kept[cluster.Value] = true
		}
	}
	// A cluster that somebody else's context uses stays.
	gone["clusters"] = slices.DeleteFunc(gone["clusters"], func(n string) bool { return kept[n] })
	return gone
}

// rewrite is read, change, compare, replace, under the lock.
func rewrite(ctx context.Context, path string, backup bool, now time.Time, res *Result, change func(*document, []byte) (string, error)) error {
	// A symlink (dotfile managers) stays one: its target is replaced.
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fault.File(err, elsewhere, "%s cannot be created", filepath.Dir(path))
		}
		real, err = path, nil
	}
	if err != nil {
		return fault.File(err, elsewhere, "%s cannot be read", path)
	}
	unlock, err := lock(ctx, path, real)
	if err != nil {
		return err
	}
	defer unlock()
	for range 10 {
		before, err := read(real)
		if err != nil {
			return err
		}
		d, err := parse(path, before)
		if err != nil {
			return err
		}
		*res = Result{}
		after, err := change(d, before)
		if err != nil {
			return err
		}
		if final, err := parse(path, []byte(after)); err == nil {
			if cur := lookup(final.root, "current-context"); cur != nil {
				res.Current = cur.Value
			}
		}
		if after == string(before) {
			return nil
		}
		if backup && len(before) > 0 {
			res.Backup = real + ".bak-" + now.Format("20060102-150405")
			if err := replace(res.Backup, before); err != nil {
				return err
			}
		}
		// A writer that does not know the lock: look once more, then again.
		if again, err := read(real); err != nil || !bytes.Equal(again, before) {
			continue
		}
		res.Changed = true
		if empty(after) {
			if err := os.Remove(real); err != nil {
				return fault.File(err, elsewhere, "%s cannot be removed", path)
			}
			return nil
		}
		return replace(real, []byte(after))
	}
	return fault.New(fault.ExitFailed, "try again", "%s is being written by something else all the time", path)
}

// empty reports whether nothing is left that anybody could want.
func empty(text string) bool {
	d, err := parse("", []byte(text))
	if err != nil || strings.Contains(text, "#") {
		return false
	}
	if d.root == nil {
		return true
	}
	for i := 0; i+1 < len(d.root.Content); i += 2 {
		switch v := d.root.Content[i+1]; d.root.Content[i].Value {
		case "apiVersion", "kind":
		case "current-context":
			if v.Value != "" {
				return false
			}
		default:
			if len(v.Content) > 0 {
				return false
			}
		}
	}
	return true
}

// read returns nothing for a missing file and refuses one that is not the
// person's own: zt would put its secret into it.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.File(err, elsewhere, "%s cannot be read", path)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fault.File(err, elsewhere, "%s cannot be read", path)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return nil, fault.New(fault.ExitUntrusted, elsewhere, "%s belongs to another user (uid %d)", path, st.Uid)
	}
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o022 != 0 {
		return nil, fault.New(fault.ExitUntrusted, "chmod 600 "+path, "%s can be written by others or is not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil || len(data) > maxFile {
		return nil, fault.New(fault.ExitFailed, "", "%s cannot be read or is too large", path)
	}
	return data, nil
}

// replace writes path whole or not at all, 0600: it holds the proxy's secret.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fault.File(err, elsewhere, "%s cannot be written", path)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fault.File(err, elsewhere, "%s cannot be written", path)
	}
	return nil
}

// lock takes the locks of a file under both its names. client-go locks the name
// that it was given, a symlink's too; who was given the target locks that one.
func lock(ctx context.Context, path, real string) (unlock func(), err error) {
	names := []string{real}
	// A symlink above the file leads to one and the same FILE.lock.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		if there, err := filepath.EvalSymlinks(filepath.Dir(real)); err == nil &&
			(dir != there || filepath.Base(path) != filepath.Base(real)) {
			names = []string{path, real}
		}
	}
	var held []func()
	unlock = func() {
		for _, release := range slices.Backward(held) {
			release()
		}
	}
	for _, name := range names {
		release, err := lockOne(ctx, name)
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, release)
	}
	return unlock, nil
}

// lockOne is client-go's protocol (tools/clientcmd: lockFile): whoever creates
// FILE.lock may write FILE.
func lockOne(ctx context.Context, path string) (unlock func(), err error) {
	name := path + ".lock"
	deadline := time.Now().Add(lockLimit)
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			f.Close()
			return func() { os.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fault.File(err, elsewhere, "%s cannot be locked", path)
		}
		if time.Now().After(deadline) {
			return nil, fault.New(fault.ExitFailed, "if no other kubectl is at work: rm "+name, "%s is locked by another program", path)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond + rand.N(10*time.Millisecond)): // nobody is always late
		}
	}
}
