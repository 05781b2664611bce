package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestV201Pair swaps a mounted Secret the way the kubelet does while it is read:
// two files that belong together are of one side.
func TestV201Pair(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour) // so that nothing is waited for
	for _, side := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, "..version-"+side), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"tls.crt", "tls.key"} {
			path := filepath.Join(dir, "..version-"+side, name)
			write(t, path, side)
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap := func(side string) {
		tmp := filepath.Join(dir, "..data_tmp")
		if err := errors.Join(os.Symlink("..version-"+side, tmp), os.Rename(tmp, filepath.Join(dir, "..data"))); err != nil {
			t.Error(err)
		}
	}
	swap("a")
	paths := []string{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	for _, path := range paths {
		if err := os.Symlink(filepath.Join("..data", filepath.Base(path)), path); err != nil {
			t.Fatal(err)
		}
	}
	first := Print(paths...)
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				swap(string(rune('a' + i%2)))
				if i%20 == 0 {
					time.Sleep(time.Millisecond) // let a reading through now and then
				}
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	read := 0
	for ctx.Err() == nil {
		r, err := Read(ctx, paths...)
		if errors.Is(err, ErrUnstable) || errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil || string(r.Data[0]) != string(r.Data[1]) {
			t.Fatalf("%q, %v", r.Data, err)
		}
		read++
	}
	close(stop)
	swapping.Wait()
	swap("b")
	r, err := Read(t.Context(), paths...)
	if err != nil || string(r.Data[0]) != "b" || r.Print == first || r.Print != Print(paths...) {
		t.Errorf("%+v, %v", r, err)
	}
	t.Logf("%d readings", read)
}

// TestV201Truncated: what is cut and then written is waited for, and what is gone
// for a moment, too.
func TestV201Truncated(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	read := func(t *testing.T, change func()) (Reading, error) {
		var writing sync.WaitGroup
		writing.Go(change)
		synctest.Wait() // the first step is done
		r, err := Read(t.Context(), path)
		writing.Wait()
		return r, err
	}
	short := Settle * 4 / 5
	for name, steps := range map[string][]func(){
		"truncated": {func() { write(t, path, "") }, func() { write(t, path, "wh") }, func() { write(t, path, "whole") }},
		"replaced":  {func() { os.Remove(path) }, func() { write(t, path, "whole") }},
	} {
		synctest.Test(t, func(t *testing.T) {
			write(t, path, "the one before")
			r, err := read(t, func() {
				for i, step := range steps {
					if i > 0 {
						time.Sleep(short)
					}
					step()
				}
			})
			if err != nil || string(r.Data[0]) != "whole" {
				t.Errorf("%s: %q, %v", name, r.Data, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		if r, err := read(t, func() { os.Remove(path) }); !errors.Is(err, fs.ErrNotExist) || r.Print != Print(path) {
			t.Errorf("%+v, %v", r, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var writing sync.WaitGroup
		writing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				write(t, path, fmt.Sprint(i))
				time.Sleep(Settle / 2)
			}
		})
		if _, err := Read(ctx, path); !errors.Is(err, ErrUnstable) {
			t.Error(err)
		}
		cancel()
		writing.Wait()
		write(t, path, strings.Repeat("x", largest+1))
		if _, err := Read(t.Context(), path); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Error(err)
		}
	})
}

// A file of the same size and time, and one with another mode, are other files.
func TestPrint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, other := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	at := time.Now()
	for _, p := range []string{path, other} {
		write(t, p, "same")
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
	}
	first := Print(path)
	if Print(path) != first {
		t.Error("the print is not stable")
	}
	if err := os.Chmod(path, 0o640); err != nil || Print(path) == first {
		t.Errorf("another mode: %v", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Rename(other, path)); err != nil || Print(path) == first {
		t.Errorf("another file: %v", err)
	}
}
