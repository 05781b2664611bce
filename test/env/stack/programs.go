package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

var built struct {
	sync.Mutex
	dir string
}

// Programs builds kubectl-zt and zt-gateway the way they are shipped and
// returns their directory, which is removed by RemovePrograms.
func Programs(ctx context.Context) (string, error) {
	built.Lock()
	defer built.Unlock()
	if built.dir != "" {
		return built.dir, nil
	}
	if dir := os.Getenv("ZT_TEST_BIN"); dir != "" {
		built.dir = dir
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "zt-bin-")
	if err != nil {
		return "", fmt.Errorf("build zt: %w", err)
	}
	for _, program := range []string{"kubectl-zt", "zt-gateway"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w",
			"-o", filepath.Join(dir, program), "github.com/kube-zt/zt/cmd/"+program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			_ = os.RemoveAll(dir)
			return "", fmt.Errorf("build %s: %w\n%s", program, err, out)
		}
	}
	built.dir = dir
	return dir, nil
}

// RemovePrograms removes what Programs built.
func RemovePrograms() {
	built.Lock()
	defer built.Unlock()
	if built.dir != "" && os.Getenv("ZT_TEST_BIN") == "" {
		_ = os.RemoveAll(built.dir)
	}
	built.dir = ""
}
