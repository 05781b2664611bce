package impersonate

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/files"
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
	account string
	checked time.Time
	seen    string // files.Print of the version that was read, empty for none
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
	t.seen = ""
	t.checked = t.now()
	if t.load() != nil || len(t.header) == 0 || len(used) == 0 {
		return false
	}
	return t.header[0] != used[0]
}

func (t *TokenFile) load() error {
	now := files.Print(t.path)
	if t.header != nil && now == t.seen {
		return nil
	}
	info, err := os.Stat(t.path)
	if err != nil {
		return fmt.Errorf("read service account token: %w", err)
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
	t.seen = now
	t.header = []string{"Bearer " + token}
	t.account = accountOf(token)
	return nil
}

// Account is the API server's name for the account whose token was read last, ""
// where it cannot be told from the token.
func (t *TokenFile) Account() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.account
}

// accountOf reads the subject of a service account's token, which is the user's
// name. Nothing is verified: it is our own token, and whoever writes that file has
// no need to lie about its name. Tokens of other kinds may be mapped to any name.
func accountOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil || !strings.HasPrefix(claims.Subject, "system:serviceaccount:") {
		return ""
	}
	return claims.Subject
}
