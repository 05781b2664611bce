package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// program returns the path of one of the small programs of test/bench/programs,
// which are built the way zt is.
func (b *bench) program(ctx context.Context, name string) (string, error) {
	dir := filepath.Join(b.dir, "programs")
	if !b.built {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/",
			"github.com/kube-zt/zt/test/bench/programs/...")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build the floors: %w\n%s", err, out)
		}
		b.built = true
	}
	return filepath.Join(dir, name), nil
}

// timed is a program to run, with its whole environment.
type timed struct {
	name string
	Args []string
	Env  []string
}

// Metrics of a run.
const (
	wall     = "wall"     // milliseconds
	resident = "resident" // MiB, at most
)

// timeRuns runs the commands in turns, once each without counting, and adds each
// run's time and memory.
func (b *bench) timeRuns(ctx context.Context, s samples, rounds int, commands []timed) error {
	timer, err := b.program(ctx, "timer")
	if err != nil {
		return err
	}
	job, err := json.Marshal(struct {
		Rounds   int
		Commands []timed
	}{rounds + 1, commands})
	if err != nil {
		return err
	}
	var out, diag bytes.Buffer
	cmd := exec.CommandContext(ctx, timer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(job), &out, &diag
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("time programs: %w: %s", err, diag.Bytes())
	}
	var outcome struct{ Nanoseconds, Kilobytes [][]int64 }
	if err := json.Unmarshal(out.Bytes(), &outcome); err != nil {
		return fmt.Errorf("time programs: %w", err)
	}
	for i, c := range commands {
		for round := 1; round <= rounds; round++ {
			s.add(c.name, wall, milliseconds(time.Duration(outcome.Nanoseconds[i][round])))
			s.add(c.name, resident, mebibytes(outcome.Kilobytes[i][round]<<10))
		}
	}
	return nil
}
