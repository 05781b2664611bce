package authn

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
)

// extraDomain is zt's own among extra keys.
const extraDomain = "kube-zt.io"

// decode reads, defaults and validates an AuthenticationConfiguration with
// Kubernetes' own code, strictly, and then holds it against what zt demands on
// top. All faults are reported at once.
func decode(config []byte, compiler authenticationcel.Compiler, o FurtherOptions) ([]apiserver.JWTAuthenticator, error) {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	object, err := runtime.Decode(codecs.UniversalDecoder(), config)
	if err != nil {
		return nil, fmt.Errorf("authentication configuration: %v", err)
	}
	c, ok := object.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("authentication configuration: it is a %T", object)
	}
	var faults []error
	for _, err := range validation.ValidateAuthenticationConfiguration(compiler, c, disallowed(o)) {
		faults = append(faults, err)
	}
	if c.Anonymous != nil {
		faults = append(faults, errors.New("anonymous: nobody is served without a credential"))
	}
	for i, a := range c.JWT {
		for _, err := range demands(a, o) {
			faults = append(faults, fmt.Errorf("jwt[%d] (%s): %w", i, a.Issuer.URL, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("authentication configuration: %w", err)
	}
	return c.JWT, nil
}

func disallowed(o FurtherOptions) []string {
	if o.ControlIssuer == "" {
		return nil
	}
	return []string{o.ControlIssuer}
}

// demands are zt's rules beyond Kubernetes'.
func demands(a apiserver.JWTAuthenticator, o FurtherOptions) []error {
	var faults []error
	if o.LoginClientID != "" && slices.Contains(a.Issuer.Audiences, o.LoginClientID) {
		faults = append(faults, fmt.Errorf("issuer.audiences: %q is the login client; register an audience of its own, or an ID token from a login would open the API without a device", o.LoginClientID))
	}
	if a.Issuer.EgressSelectorType != "" {
		faults = append(faults, errors.New("issuer.egressSelectorType: there are no egress selectors here"))
	}
	for name, mapping := range map[string]apiserver.PrefixedClaimOrExpression{
		"username": a.ClaimMappings.Username, "groups": a.ClaimMappings.Groups,
	} {
		if mapping.Claim != "" && (mapping.Prefix == nil || len(*mapping.Prefix) < 2 || !strings.Contains(*mapping.Prefix, ":")) {
			faults = append(faults, fmt.Errorf("claimMappings.%s.prefix: must be something like \"ci:\", so that nobody is taken for a person who logged in through zt", name))
		}
		if p := mapping.Prefix; p != nil && (strings.HasPrefix(*p, "system:") || *p == "zt:" || *p == o.UsernamePrefix && *p != "") {
			faults = append(faults, fmt.Errorf("claimMappings.%s.prefix: %q is reserved", name, *p))
		}
	}
	for _, extra := range a.ClaimMappings.Extra {
		if domain, _, _ := strings.Cut(extra.Key, "/"); domain == extraDomain || strings.HasSuffix(domain, "."+extraDomain) {
			faults = append(faults, fmt.Errorf("claimMappings.extra: key %q is zt's own", extra.Key))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}
