package proc

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestCPU(t *testing.T) {
	t.Parallel()
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var start, now syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &start); err != nil {
		t.Fatal(err)
	}
	used := time.Duration(0)
	for used < 50*time.Millisecond { // by rusage, so that a busy machine does not matter
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &now); err != nil {
			t.Fatal(err)
		}
		used = time.Duration(now.Utime.Nano() + now.Stime.Nano() - start.Utime.Nano() - start.Stime.Nano())
	}
	after, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got := after - before; got < 30*time.Millisecond || got > 10*used {
		t.Errorf("CPU says %s where rusage says %s", got, used)
	}
	if _, err := CPU(1 << 21); err == nil {
		t.Error("CPU of a process that does not exist: no error")
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	got, err := parseStatus([]byte("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n"))
	if want := (Memory{Resident: 1 << 20, Peak: 2 << 20}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseStatus([]byte("Name:\tx\n")); err == nil {
		t.Error("a status without figures: no error")
	}
	if m, err := ReadMemory(os.Getpid()); err != nil || m.Resident < 1<<20 || m.Peak < m.Resident {
		t.Errorf("own memory: %+v, %v", m, err)
	}
}

func TestSockets(t *testing.T) {
	before, err := Sockets(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if after, err := Sockets(os.Getpid()); err != nil || after != before+1 {
		t.Errorf("sockets %d, then with a listener %d, %v", before, after, err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	got, err := Find(filepath.Base(os.Args[0]), os.Args[0])
	if err != nil || got != os.Getpid() {
		t.Errorf("found %d, %v, want ourselves, %d", got, err, os.Getpid())
	}
	if got, err := Find(filepath.Base(os.Args[0]), "no such word"); err == nil {
		t.Errorf("found %d", got)
	}
}
