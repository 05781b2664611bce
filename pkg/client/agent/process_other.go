//go:build !linux

package agent

import "strconv"

// processKey is the pid where its start time is not to be had; what is kept by it
// is forgotten after a minute.
func processKey(pid int) string { return strconv.Itoa(pid) }
