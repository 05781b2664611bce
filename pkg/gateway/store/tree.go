package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/gateway/files"
)

const (
	mostFiles = 10_000
	mostBytes = 64 << 20
	deepest   = 8
)

// tree is one whole reading of a directory of manifests.
type tree struct {
	files   []treeFile
	ignored []string // not dotted, but no manifest either
	// directories that must be watched for changes.
	directories []string
	listing     string // fingerprint of names, sizes, times and links
	newest      time.Time
}

type treeFile struct {
	path string // as people know it
	name string // relative to the root
	data []byte
}

// readTree returns a reading of root that is equal to a second one. That is how
// a symlink that is swapped between two files, as Kubernetes does with mounted
// ConfigMaps, cannot yield half of each side: names, link targets, inodes and
// times are compared before, between and after.
func readTree(ctx context.Context, root string) (*tree, error) {
	t, err := files.Settled(ctx, func() (*tree, time.Time, error) {
		t, err := readOnce(root)
		if err != nil {
			return nil, time.Time{}, err
		}
		return t, t.newest, nil
	}, (*tree).equal)
	var gone *goneError
	if errors.Is(err, files.ErrUnstable) && !errors.As(err, &gone) {
		return nil, fmt.Errorf("%s: %w", root, err)
	}
	return t, err
}

func readOnce(root string) (*tree, error) {
	before, err := list(root)
	if err != nil {
		return nil, err
	}
	total := 0
	for i := range before.files {
		f := &before.files[i]
		if f.data, err = readSome(f.path); err != nil {
			return nil, vanished(err)
		}
		if total += len(f.data); total > mostBytes {
			return nil, fmt.Errorf("%s: holds more than %d bytes of manifests", root, mostBytes)
		}
	}
	after, err := list(root)
	if err != nil {
		return nil, err
	}
	if before.listing != after.listing {
		return nil, files.ErrUnstable
	}
	return before, nil
}

// readSome reads one byte more than a manifest may have, so that a file that is
// too large is known as such without being read.
func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, manifest.MaxFile+1))
	return data, errors.Join(err, f.Close())
}

// vanished: between a listing and a reading files may go; that is change.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &goneError{err}
	}
	return err
}

// goneError is something that is listed and not there. It is no fs.ErrNotExist: the
// directory itself is there.
type goneError struct{ err error }

func (e *goneError) Error() string {
	return e.err.Error() + " (a link that leads nowhere, or the directory keeps changing)"
}

func (e *goneError) Is(target error) bool { return target == files.ErrUnstable }

func (t *tree) equal(o *tree) bool {
	return t.listing == o.listing && slices.EqualFunc(t.files, o.files, func(a, b treeFile) bool {
		return a.path == b.path && string(a.data) == string(b.data)
	})
}

// version names the content: paths and bytes, not times.
func (t *tree) version() string {
	h := sha256.New()
	for _, f := range t.files {
		fmt.Fprintf(h, "%q %d\n", f.name, len(f.data))
		h.Write(f.data)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// list walks root without reading files.
func list(root string) (*tree, error) {
	t := &tree{}
	h := sha256.New()
	if err := t.walk(h, root, "", 0); err != nil {
		if _, rootErr := os.Stat(root); rootErr != nil {
			return nil, rootErr
		}
		return nil, vanished(err)
	}
	t.listing = hex.EncodeToString(h.Sum(nil))
	return t, nil
}

func (t *tree) walk(h hash.Hash, dir, name string, depth int) error {
	if depth > deepest {
		return fmt.Errorf("%s: directories are nested more than %d deep, or a link leads back", dir, deepest)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	t.directories = append(t.directories, dir)
	for _, entry := range entries {
		path, name := filepath.Join(dir, entry.Name()), filepath.Join(name, entry.Name())
		info, err := entry.Info()
		if err != nil {
			return err
		}
		t.note(h, name, info)
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "-> %q\n", target)
		}
		if strings.HasPrefix(entry.Name(), ".") {
			// Where Kubernetes keeps the versions of a mount, and editors their
			// copies. That they changed is noted; what they hold is not read.
			continue
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if info, err = os.Stat(path); err != nil {
				return err
			}
			t.note(h, name, info)
		}
		switch {
		case info.IsDir():
			if err := t.walk(h, path, name, depth+1); err != nil {
				return err
			}
		case !info.Mode().IsRegular() || !isManifest(entry.Name()):
			t.ignored = append(t.ignored, path)
		default:
			t.files = append(t.files, treeFile{path: path, name: name})
			if len(t.files) > mostFiles {
				return fmt.Errorf("%s: holds more than %d manifests", dir, mostFiles)
			}
		}
	}
	return nil
}

func (t *tree) note(h hash.Hash, name string, info fs.FileInfo) {
	files.Note(h, name, info)
	if info.ModTime().After(t.newest) {
		t.newest = info.ModTime()
	}
}

func isManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
