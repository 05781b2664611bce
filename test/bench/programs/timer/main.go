// Command timer runs other programs in turns and says how long each run took and
// how much memory it had at most. It is a program of its own because it must be
// small: the kernel counts the memory of whoever starts a program as the
// program's, and a large heap makes starting slow.
//
// Standard input is a JSON Job, standard output a JSON Outcome.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

type command struct {
	Args []string
	Env  []string
}

type job struct {
	Rounds   int
	Commands []command
}

// outcome has one list per command, with one entry per round.
type outcome struct {
	Nanoseconds [][]int64
	Kilobytes   [][]int64
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "timer:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	result := outcome{Nanoseconds: make([][]int64, len(j.Commands)), Kilobytes: make([][]int64, len(j.Commands))}
	for round := range j.Rounds {
		for i := range j.Commands {
			at := (i + round) % len(j.Commands)
			took, kilobytes, err := once(j.Commands[at], null)
			if err != nil {
				return fmt.Errorf("%q: %w", j.Commands[at].Args, err)
			}
			result.Nanoseconds[at] = append(result.Nanoseconds[at], took.Nanoseconds())
			result.Kilobytes[at] = append(result.Kilobytes[at], kilobytes)
		}
	}
	return json.NewEncoder(out).Encode(result)
}

func once(c command, null *os.File) (time.Duration, int64, error) {
	start := time.Now()
	process, err := os.StartProcess(c.Args[0], c.Args, &os.ProcAttr{Env: c.Env, Files: []*os.File{null, null, os.Stderr}})
	if err != nil {
		return 0, 0, err
	}
	state, err := process.Wait()
	took := time.Since(start)
	if err != nil {
		return 0, 0, err
	}
	if !state.Success() {
		return 0, 0, fmt.Errorf("%s", state)
	}
	return took, state.SysUsage().(*syscall.Rusage).Maxrss, nil
}
