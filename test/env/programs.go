package env

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// built remembers where the programs are. The cache is found by way of HOME,
// which tests change.
var built struct {
	sync.Mutex
	dir string
}

// Build builds the programs of test/controlplane, or finds them in the cache, and
// returns their directory. Progress goes to log. The first build takes minutes;
// concurrent ones, also of other processes, wait for it.
func Build(ctx context.Context, log io.Writer) (string, error) {
	built.Lock()
	defer built.Unlock()
	if built.dir != "" {
		return built.dir, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	script := filepath.Join(root, "test", "controlplane", "build.sh")
	cmd := exec.CommandContext(ctx, "sh", script)
	cmd.Stderr = log
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build the control plane with %s: %w", script, err)
	}
	built.dir = strings.TrimSpace(string(out))
	return built.dir, nil
}

// moduleRoot walks up from the working directory, which for a test is that of its
// package and for make the root itself.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test", "controlplane", "build.sh")); err == nil {
			return dir, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find the module: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the module: %s is not inside a checkout of it", start)
		}
	}
}
