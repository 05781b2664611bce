// Command rss runs a program and prints its peak resident size in KiB. It is as
// small as can be: a process starts its life with the peak of the one that forked
// it, and a test's is larger than what is to be measured.
package main

import (
	"os"
	"strconv"
	"syscall"
)

func main() {
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 2, 2}}
	pid, err := syscall.ForkExec(os.Args[1], os.Args[1:], attr)
	if err != nil {
		os.Exit(1)
	}
	var status syscall.WaitStatus
	var usage syscall.Rusage
	if _, err := syscall.Wait4(pid, &status, 0, &usage); err != nil || status.ExitStatus() != 0 {
		os.Exit(1)
	}
	os.Stdout.WriteString(strconv.FormatInt(usage.Maxrss, 10))
}
