package fault

import (
	"slices"
	"strings"
)

// verb is how a hint names a command of zt's.
const verb = "kubectl zt "

// anyProfile are commands that mean the same whatever the profile.
var anyProfile = []string{"agent", "version", "completion", "help", "--help", "--profile"}

// ForProfile returns text with --profile in every command of zt's that it names
// and that would mean the current profile otherwise.
func ForProfile(text, profile string) string {
	parts := strings.Split(text, verb)
	for i := 1; i < len(parts); i++ {
		next, _, _ := strings.Cut(parts[i], " ")
		if !slices.Contains(anyProfile, next) {
			parts[i] = "--profile " + profile + " " + parts[i]
		}
	}
	return strings.Join(parts, verb)
}

// ForProfile returns f with hints for who did not mean the current profile. Done
// twice it is done once.
func (f *Fault) ForProfile(profile string) *Fault {
	named := *f
	named.Hints = slices.Clone(f.Hints)
	for i, h := range named.Hints {
		named.Hints[i] = ForProfile(h, profile)
	}
	return &named
}
