package files

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// largest bounds one file, in bytes.
const largest = 4 << 20

// Reading is what two looks at some files agreed on.
type Reading struct {
	// Print is the files' Print when they were read.
	Print string
	// Data of each file, in the order asked for.
	Data [][]byte
}

// Read reads files that belong together. The error is that of the first one that
// cannot be read, ErrUnstable, or ctx's; Print is valid with the first of these.
func Read(ctx context.Context, paths ...string) (Reading, error) {
	type look struct {
		Reading
		err error
	}
	r, err := Settled(ctx, func() (look, time.Time, error) {
		before, touched := seen(paths)
		r := look{Reading: Reading{Print: before}}
		for _, path := range paths {
			data, err := readFile(path)
			r.Data = append(r.Data, data)
			if r.err == nil {
				r.err = err
			}
		}
		if after, _ := seen(paths); after != before {
			return look{}, time.Time{}, ErrUnstable
		}
		return r, touched, nil
	}, func(a, b look) bool {
		return a.Print == b.Print && (a.err == nil) == (b.err == nil) &&
			slices.EqualFunc(a.Data, b.Data, func(a, b []byte) bool { return string(a) == string(b) })
	})
	if err != nil {
		return Reading{}, fmt.Errorf("%s: %w", paths[0], err)
	}
	return r.Reading, r.err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, largest+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > largest {
		return nil, fmt.Errorf("%s: has more than %d bytes", path, largest)
	}
	return data, nil
}

// Version names contents, empty without any.
func Version(data ...[]byte) string {
	if len(data) == 0 {
		return ""
	}
	h := sha256.New()
	for _, d := range data {
		fmt.Fprintf(h, "%d\n", len(d))
		h.Write(d)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// Print tells one state of files from another without reading them.
func Print(paths ...string) string {
	p, _ := seen(paths)
	return p
}

func seen(paths []string) (text string, touched time.Time) {
	h := sha256.New()
	for _, path := range paths {
		at, err := note(h, path)
		if err != nil {
			fmt.Fprintf(h, "%q is not there\n", path)
			at = time.Now() // perhaps in the middle of being replaced
		}
		if at.After(touched) {
			touched = at
		}
	}
	return hex.EncodeToString(h.Sum(nil)), touched
}

// note writes down what can be seen of path from outside, and returns when that
// was changed last. Where path is a link this is said of the link and of what it
// leads to; links in between show by the latter.
func note(w io.Writer, path string) (touched time.Time, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, err
	}
	Note(w, path, info)
	touched = info.ModTime()
	if info.Mode()&fs.ModeSymlink == 0 {
		return touched, nil
	}
	target, err := os.Readlink(path)
	if err != nil {
		return time.Time{}, err
	}
	fmt.Fprintf(w, "-> %q\n", target)
	if info, err = os.Stat(path); err != nil {
		return time.Time{}, err
	}
	Note(w, path, info)
	if info.ModTime().After(touched) {
		touched = info.ModTime()
	}
	return touched, nil
}

// Note writes down one file's mode, size, time and inode.
func Note(w io.Writer, name string, info fs.FileInfo) {
	fmt.Fprintf(w, "%q %v %d %d %d\n", name, info.Mode(), info.Size(), info.ModTime().UnixNano(), inode(info))
}

// SyncDirectory makes what was named in path, by a rename or a link, outlast a
// crash.
func SyncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
