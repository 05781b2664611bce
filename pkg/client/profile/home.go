package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// maxSocketPath is below the 104 bytes that macOS allows in sun_path (Linux: 108).
const maxSocketPath = 100

const socketName = "agent.sock"

// Home is where one user's zt lives.
type Home struct {
	// Dir holds profiles and device keys.
	Dir string
	// Run holds the agent's socket, lock and log.
	Run string
}

// Find tells where zt lives without touching the disk beyond a look at the
// runtime directory: $ZT_HOME, else $XDG_CONFIG_HOME/zt, else ~/.config/zt. The
// same user gets the same agent from a login shell and from cron: where
// XDG_RUNTIME_DIR is not set, the directory it usually names is tried.
func Find(env func(string) string) (Home, error) {
	own := env("ZT_HOME")
	dir := own
	if dir == "" {
		config := env("XDG_CONFIG_HOME")
		if !filepath.IsAbs(config) { // the XDG specification: relative ones are ignored
			home := env("HOME")
			if home == "" {
				return Home{}, fault.New(fault.ExitFailed, "set HOME or ZT_HOME", "neither HOME nor ZT_HOME is set")
			}
			config = filepath.Join(home, ".config")
		}
		dir = filepath.Join(config, "zt")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Home{}, fmt.Errorf("place of zt's files: %w", err)
	}
	run := filepath.Join(dir, "run")
	if own == "" {
		for _, d := range []string{env("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(os.Geteuid())} {
			if filepath.IsAbs(d) && lookOwn(d) == nil {
				run = filepath.Join(d, "zt")
				break
			}
		}
	}
	if len(filepath.Join(run, socketName)) > maxSocketPath {
		// Named by a hash of Dir, so that two homes never share an agent.
		sum := sha256.Sum256([]byte(dir))
		name := "zt-" + strconv.Itoa(os.Geteuid()) + "-" + hex.EncodeToString(sum[:6])
		run = filepath.Join(os.TempDir(), name)
		if len(filepath.Join(run, socketName)) > maxSocketPath {
			run = filepath.Join("/tmp", name)
		}
	}
	return Home{Dir: dir, Run: run}, nil
}

// Prepare creates what is missing and refuses what somebody else could have
// arranged.
func (h Home) Prepare() error {
	for _, d := range []string{h.Dir, h.profiles(), h.keys(), h.Run} {
		if err := SecureDir(d); err != nil {
			return err
		}
	}
	return nil
}

// CheckRun refuses a runtime directory that is not this user's alone. It is one
// lstat: nobody else can make a directory that this user owns, so what lies
// above it need not be looked at by every kubectl.
func (h Home) CheckRun() error { return checkOwn(h.Run) }

// Socket, lock and log of the agent.
func (h Home) Socket() string { return filepath.Join(h.Run, socketName) }
func (h Home) Lock() string   { return filepath.Join(h.Run, "agent.lock") }
func (h Home) Spawn() string  { return filepath.Join(h.Run, "spawn.lock") }
func (h Home) Log() string    { return filepath.Join(h.Run, "agent.log") }

// Key is the file of a profile's software device key. Each gateway sees a key
// of its own, so two of them cannot tell that they know the same laptop.
func (h Home) Key(n Name) string { return filepath.Join(h.keys(), string(n)+".pem") }

func (h Home) profiles() string { return filepath.Join(h.Dir, "profiles") }
func (h Home) keys() string     { return filepath.Join(h.Dir, "keys") }
func (h Home) file(n Name) string {
	return filepath.Join(h.profiles(), string(n)+".json")
}
func (h Home) current() string { return filepath.Join(h.Dir, "current") }
func (h Home) tunnel() string  { return filepath.Join(h.Dir, "tunnel.json") }
