package agent

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// processKey names a process for as long as it lives: a pid alone is given again
// (proc(5), /proc/PID/stat: field 22 is the start time, the second one may hold
// spaces).
func processKey(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return strconv.Itoa(pid)
	}
	i := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[i+1:])
	if i < 0 || len(fields) < 20 {
		return strconv.Itoa(pid)
	}
	return strconv.Itoa(pid) + "@" + string(fields[19])
}
