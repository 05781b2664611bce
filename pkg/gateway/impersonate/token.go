package impersonate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// tokenRecheck is how often the file is looked at. The kubelet writes a new
	// token when 80 % of the old one's life is over, minutes before the end.
	tokenRecheck = 5 * time.Second
	tokenLimit   = 64 << 10
)

// TokenFile is the gateway's own service account token in one cluster, read
// again when the file changes. It does not print.
type TokenFile struct {
	path string
	now  func() time.Time

	mu      sync.Mutex
	header  []string // "Bearer …", ready for a header
	checked time.Time
	stamp   stamp
}

// stamp tells one version of the file from another. A projected volume swaps a
// symbolic link, so that size and time alone would do only by luck.
type stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo
}

func (s stamp) same(o stamp) bool {
	return s.info != nil && o.info != nil && s.modified.Equal(o.modified) && s.size == o.size && os.SameFile(s.info, o.info)
}

// NewTokenFile reads nothing yet.
func NewTokenFile(path string, now func() time.Time) *TokenFile {
	return &TokenFile{path: path, now: now}
}

// String keeps the token out of logs.
func (t *TokenFile) String() string { return "token in " + t.path }

// authorization is the header's value. After a first success an unreadable file
// leaves the last token in use, for the API server to judge.
func (t *TokenFile) authorization() ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if t.header != nil && now.Sub(t.checked) < tokenRecheck {
		return t.header, nil
	}
	t.checked = now
	if err := t.load(); err != nil && t.header == nil {
		return nil, err
	}
	return t.header, nil
}

// reload reads the file now, because the API server refused the token, and
// reports whether there is another one than before.
func (t *TokenFile) reload(used []string) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stamp = stamp{}
	t.checked = t.now()
	if t.load() != nil || len(t.header) == 0 || len(used) == 0 {
		return false
	}
	return t.header[0] != used[0]
}

func (t *TokenFile) load() error {
	info, err := os.Stat(t.path)
	if err != nil {
		return fmt.Errorf("read service account token: %w", err)
	}
	current := stamp{info.ModTime(), info.Size(), info}
	if t.header != nil && t.stamp.same(current) {
		return nil
	}
	if info.Size() > tokenLimit {
		return errors.New("read service account token: file is too large")
	}
	data, err := os.ReadFile(t.path)
	if err != nil {
		return fmt.Errorf("read service account token: %w", err)
	}
	token := string(bytes.TrimSpace(data))
	if token == "" || strings.ContainsAny(token, "\r\n \x00") {
		return fmt.Errorf("read service account token: %s holds no token", t.path)
	}
	t.stamp = current
	t.header = []string{"Bearer " + token}
	return nil
}
