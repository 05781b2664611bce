package kubeconfig

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Owned tells which clusters of a profile stand in the file at path: the cluster
// that the plugin is asked for, by the name of the user entry, which is the host
// unless the person has renamed it. A missing file holds none.
func Owned(path, profile string) (map[string]string, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	d, err := parse(path, data)
	if err != nil {
		return nil, err
	}
	owned := map[string]string{}
	users, _ := d.items("users")
	for _, u := range users {
		if ownedBy(u) == profile {
			owned[lookup(u, "name").Value] = clusterOf(u)
		}
	}
	return owned, nil
}

// RemoveUsers takes the profile's entries of the named users out of the file, with
// their contexts and clusters. A missing file is fine.
func RemoveUsers(ctx context.Context, path, profile string, users ...string) (Result, error) {
	var res Result
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || len(users) == 0 {
		return res, nil
	}
	err := rewrite(ctx, path, false, time.Time{}, &res, func(d *document, before []byte) (string, error) {
		return d.without(before, d.ownedBy(profile, func(user string) bool { return slices.Contains(users, user) }))
	})
	return res, err
}

// clusterOf is the cluster for which a user entry of ours runs the plugin.
func clusterOf(item node) string {
	var stanza execStanza
	if exec := lookup(lookup(item, "user"), "exec"); exec == nil || exec.Decode(&stanza) != nil {
		return ""
	}
	if i := slices.Index(stanza.Args, "--cluster"); i >= 0 && i+1 < len(stanza.Args) {
		return stanza.Args[i+1]
	}
	return ""
}
