// Package proc reads what another process of the same person has used: CPU time,
// memory and sockets. Linux only, like the control plane that the bench needs.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the CPU time that the process has used so far, with the kernel's
// nanosecond clock and not in the 10 ms ticks of /proc/PID/stat: a round of the
// bench lasts a second or two. Ended children do not count.
func CPU(pid int) (time.Duration, error) {
	// Linux's clock_getcpuclockid(3): the complement of the process id, shifted by
	// three, with CPUCLOCK_SCHED.
	clock := int32(^pid<<3) | 2 //nolint:gosec // process ids fit in 22 bits
	var used unix.Timespec
	if err := unix.ClockGettime(clock, &used); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(used.Nano()), nil
}

// Memory is what a process holds, in bytes.
type Memory struct {
	Resident int64 // now
	Peak     int64 // the most it ever was
}

// ReadMemory returns the memory of the process.
func ReadMemory(pid int) (Memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	return parseStatus(status)
}

func parseStatus(status []byte) (Memory, error) {
	var m Memory
	for _, field := range []struct {
		name string
		to   *int64
	}{{"VmRSS:", &m.Resident}, {"VmHWM:", &m.Peak}} {
		_, rest, found := bytes.Cut(status, []byte(field.name))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		number := strings.TrimSuffix(strings.TrimSpace(string(line)), " kB")
		kilobytes, err := strconv.ParseInt(number, 10, 64)
		if !found || err != nil {
			return Memory{}, fmt.Errorf("no %s in the status of a process", field.name)
		}
		*field.to = kilobytes << 10
	}
	return m, nil
}

// Sockets returns how many sockets the process has open.
func Sockets(pid int) (int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("count the sockets of process %d: %w", pid, err)
	}
	sockets := 0
	for _, entry := range entries {
		// A descriptor may have been closed in between.
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil && strings.HasPrefix(target, "socket:") {
			sockets++
		}
	}
	return sockets, nil
}

// Find returns a process of the program of that name whose command line has all
// the words.
func Find(program string, words ...string) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // has ended
		}
		line := strings.Split(string(content), "\x00")
		if filepath.Base(line[0]) != program {
			continue
		}
		found := true
		for _, word := range words {
			found = found && slices.Contains(line, word)
		}
		if found {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, fmt.Errorf("no process %s %s", program, strings.Join(words, " "))
}
