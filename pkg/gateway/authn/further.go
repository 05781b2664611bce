package authn

import (
	"context"

	"github.com/kube-zt/zt/pkg/wire"
)

// FurtherIssuers verifies tokens of the issuers in an AuthenticationConfiguration.
type FurtherIssuers struct{}

// FurtherOptions are what the configuration must agree with.
type FurtherOptions struct {
	// LoginClientID must not be an audience of any further issuer.
	LoginClientID string
	// ControlIssuer is "iss" of control's tokens: no further issuer may be it.
	ControlIssuer string
	// UsernamePrefix is zt's own: no mapped name may begin with it.
	UsernamePrefix string
}

// NewFurtherIssuers reads an AuthenticationConfiguration strictly.
func NewFurtherIssuers(config []byte, o FurtherOptions) (*FurtherIssuers, error) {
	return &FurtherIssuers{}, nil
}

// Run refreshes keys until ctx ends.
func (f *FurtherIssuers) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Authenticate implements Authenticator.
func (f *FurtherIssuers) Authenticate(ctx context.Context, raw string) (*Identity, *wire.Refusal) {
	return nil, invalid("no such issuer")
}
