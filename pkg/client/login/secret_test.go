package login_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/client/login"
)

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	const token = "eyJ-the-token"
	tokens := login.Tokens{IDToken: token, AccessToken: token, RefreshToken: token}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "tokens", tokens, "one", tokens.IDToken)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "tokens", tokens, "one", tokens.IDToken)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, verb+" "+verb+" "+verb+"\n", tokens, &tokens, tokens.IDToken)
	}
	fmt.Fprintln(&log, tokens.IDToken, []login.Secret{token}, map[string]login.Secret{"a": token})
	if got := log.String(); strings.Contains(got, token) || strings.Contains(got, fmt.Sprintf("%x", token)) || !strings.Contains(got, "[secret]") {
		t.Errorf("printed: %s", got)
	}
	if b, err := json.Marshal(tokens); err == nil {
		t.Errorf("marshalled: %s", b)
	}
	if tokens.IDToken.Reveal() != token || login.Secret("").String() != "" {
		t.Error("a secret is not what it was")
	}
}
