package env

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Command is a command line program to run beside the control plane. The zero
// value is kubectl as the administrator.
type Command struct {
	// Program is a path, or the name of a program of the control plane. Default:
	// kubectl.
	Program string
	// Kubeconfig is the value of KUBECONFIG. Default: AdminKubeconfig.
	Kubeconfig string
	// Home is the value of HOME, where kubectl keeps its discovery cache. Default:
	// one that is shared within the control plane.
	Home string
	// Dir is the working directory. Default: Home.
	Dir string
	// Env is added to PATH, HOME, KUBECONFIG and TMPDIR, which are all that the
	// program gets otherwise: no proxy, no language.
	Env []string
	// Stdin is empty by default.
	Stdin io.Reader
	// Stdout and Stderr may be set for CommandContext.
	Stdout, Stderr io.Writer
}

// Cmd prepares the command, which has not been started. Start it with
// cp.Group().Start to have it end with this process. When ctx ends, it is killed.
func (cp *ControlPlane) Cmd(ctx context.Context, command Command, args ...string) (*exec.Cmd, error) {
	if command.Program == "" {
		command.Program = "kubectl"
	}
	if !strings.ContainsRune(command.Program, filepath.Separator) {
		command.Program = cp.Bin(command.Program)
	}
	if command.Kubeconfig == "" {
		command.Kubeconfig = cp.AdminKubeconfig
	}
	if command.Home == "" {
		command.Home = filepath.Join(cp.Dir, "home")
		if err := os.MkdirAll(command.Home, 0o700); err != nil {
			return nil, err
		}
	}
	if command.Dir == "" {
		command.Dir = command.Home
	}
	cmd := exec.CommandContext(ctx, command.Program, args...)
	cmd.WaitDelay = 5 * time.Second // a grandchild may hold the output
	cmd.Dir = command.Dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + command.Home, "KUBECONFIG=" + command.Kubeconfig, "TMPDIR=" + os.TempDir(),
	}, command.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = command.Stdin, command.Stdout, command.Stderr
	return cmd, nil
}

// Group is the process group of the control plane, for further processes that
// shall end with this one. Stop kills them.
func (cp *ControlPlane) Group() *Group { return cp.group }

// Run runs the command to its end and returns what it printed. The error says
// what stderr said; ExitCode reads the code from it.
func (cp *ControlPlane) Run(ctx context.Context, command Command, args ...string) (stdout, stderr string, err error) {
	var out, diag bytes.Buffer
	command.Stdout, command.Stderr = &out, &diag
	cmd, err := cp.Cmd(ctx, command, args...)
	if err != nil {
		return "", "", err
	}
	if err = cp.group.Run(cmd); err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(cmd.Path), strings.Join(args, " "), err, bytes.TrimSpace(diag.Bytes()))
	}
	return out.String(), diag.String(), err
}

// Kubectl runs kubectl as the administrator.
func (cp *ControlPlane) Kubectl(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	return cp.Run(ctx, Command{}, args...)
}

// Apply applies manifests in YAML, server-side, taking over fields of others.
func (cp *ControlPlane) Apply(ctx context.Context, manifests string) error {
	_, _, err := cp.Run(ctx, Command{Stdin: strings.NewReader(manifests)}, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

// ExitCode returns the exit code of an error of Run, 0 for nil, and -1 when the
// program did not exit by itself.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
