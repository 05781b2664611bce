//go:build unix

package profile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// maxFile bounds what is read back: a profile with thousands of cluster CAs fits.
const maxFile = 16 << 20

// elsewhere is the way out where zt's own place cannot be had.
const elsewhere = "set ZT_HOME to a directory of yours"

// unsafe is the one shape of these refusals.
func unsafe(fix, format string, args ...any) error {
	return fault.New(fault.ExitUntrusted, fix, format, args...)
}

// SecureDir creates path where it is missing, every new directory 0700 whatever
// the umask, and refuses it when it or anything above it could be changed by
// somebody else.
func SecureDir(path string) error {
	if err := mkdirs(path); err != nil {
		return err
	}
	if err := checkOwn(path); err != nil {
		return err
	}
	return checkAbove(path)
}

// mkdirs does not use os.MkdirAll because that one leaves the rights of each
// directory to the umask.
func mkdirs(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		if err := mkdirs(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	var f *fault.Fault
	if errors.As(err, &f) {
		return f // of a directory above
	}
	return fault.New(fault.ExitFailed, elsewhere, "%s cannot be created: %v", path, errors.Unwrap(err))
}

// checkOwn is lookOwn for a directory of zt's, which it closes to others.
func checkOwn(path string) error {
	if err := lookOwn(path); err != nil {
		return err
	}
	fi, err := os.Lstat(path)
	if err == nil && fi.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(path, 0o700)
	}
	if err != nil {
		return fault.File(err, elsewhere, "%s cannot be closed to others", path)
	}
	return nil
}

// lookOwn demands a real directory of this user that nobody else can write, and
// changes nothing: the runtime directory is not zt's.
func lookOwn(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		return unsafe("remove it", "%s is a symlink where zt's own directory should be", path)
	case !fi.IsDir():
		return unsafe("remove it", "%s is not a directory", path)
	case owner(fi) != os.Geteuid():
		return unsafe(elsewhere, "%s belongs to another user (uid %d)", path, owner(fi))
	case fi.Mode().Perm()&0o022 != 0:
		return unsafe("chmod 700 "+path, "%s can be written by others", path)
	}
	return nil
}

// checkAbove walks up to the root: whoever can rename a parent can replace all
// that is below it. A sticky directory such as /tmp protects its entries.
func checkAbove(path string) error {
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("resolve parent directory: %w", err)
	}
	for dir := real; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		fi, err := os.Lstat(dir)
		if err != nil {
			return fmt.Errorf("look at parent directory: %w", err)
		}
		if uid := owner(fi); uid != 0 && uid != os.Geteuid() {
			return unsafe(elsewhere, "%s, above %s, belongs to another user (uid %d)", dir, path, uid)
		}
		if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&fs.ModeSticky == 0 {
			return unsafe("chmod go-w "+dir, "%s, above %s, can be written by others", dir, path)
		}
	}
	return nil
}

// ReadFile returns a file of this user, or an error that matches fs.ErrNotExist,
// or a refusal when it is a symlink, foreign, not regular or readable by others.
func ReadFile(path string) ([]byte, error) {
	f, err := OpenOwn(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fault.File(err, elsewhere, "%s cannot be read", path)
	}
	if len(data) > maxFile {
		return nil, unsafe("", "%s is larger than %d bytes", path, maxFile)
	}
	return data, nil
}

// OpenOwn opens a file of this user for reading, with the checks of ReadFile,
// which are made on the open descriptor: what was checked is what is read.
func OpenOwn(path string) (*os.File, error) {
	// O_NONBLOCK: a planted pipe must not hang us before it is refused.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, unsafe("remove it", "%s is a symlink where zt's own file should be", path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open file: %w", err)
	}
	if err != nil {
		return nil, fault.File(err, elsewhere, "%s cannot be read", path)
	}
	if err := checkFile(f, path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkFile(f *os.File, path string) error {
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at file: %w", err)
	}
	switch {
	case !fi.Mode().IsRegular():
		return unsafe("remove it", "%s is not a regular file", path)
	case owner(fi) != os.Geteuid():
		return unsafe("remove it", "%s belongs to another user (uid %d)", path, owner(fi))
	case fi.Mode().Perm()&0o077 != 0:
		return unsafe("chmod 600 "+path, "%s can be read or written by others (mode %04o)", path, fi.Mode().Perm())
	}
	return nil
}

// WriteFile replaces path by data, or leaves it as it was. A symlink or a
// foreign file in its place is refused and not replaced, so that the person
// hears of it.
func WriteFile(path string, data []byte) error {
	if f, err := OpenOwn(path); err == nil {
		f.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return fault.File(err, elsewhere, "%s cannot be written", path)
	}
	return syncDir(filepath.Dir(path))
}

// CreateFile writes path only if nothing is there; else the error matches
// fs.ErrExist. Two creators cannot both succeed.
func CreateFile(path string, data []byte) error {
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create file: %w", err)
	} else if err != nil {
		return fault.File(err, elsewhere, "%s cannot be written", path)
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp leaves a synced, complete file beside path. os.CreateTemp opens with
// O_EXCL and 0600; O_EXCL does not follow a symlink either.
func writeTemp(path string, data []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", fault.File(err, elsewhere, "%s cannot be written", path)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fault.File(err, elsewhere, "%s cannot be written", path)
	}
	return f.Name(), nil
}

// syncDir makes a rename survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fault.File(err, elsewhere, "%s cannot be written", dir)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fault.File(err, elsewhere, "%s cannot be written", dir)
	}
	return nil
}

func owner(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
