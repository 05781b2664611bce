package wire

import (
	"fmt"
	"net/http"
)

// Reason is why something was refused: a closed list that travels from the
// decision to the audit record, the HTTP answer and the laptop's hint.
type Reason string

const (
	ReasonUnauthenticated  Reason = "unauthenticated"   // no credential, or one that proves nothing
	ReasonTokenExpired     Reason = "token_expired"     // genuine, but too old
	ReasonTokenInvalid     Reason = "token_invalid"     // not genuine, or for somebody else
	ReasonIdPUnreachable   Reason = "idp_unreachable"   // keys cannot be fetched
	ReasonBindingMissing   Reason = "binding_missing"   // a control token outside its tunnel
	ReasonBindingMismatch  Reason = "binding_mismatch"  // token of another device or session
	ReasonIdentityMismatch Reason = "identity_mismatch" // token of another person
	ReasonReservedIdentity Reason = "reserved_identity" // a mapped name that is Kubernetes' or zt's own
	ReasonProofExpired     Reason = "proof_expired"
	ReasonProofInvalid     Reason = "proof_invalid"
	ReasonWrongCluster     Reason = "wrong_cluster"
	ReasonDeviceRefused    Reason = "device_refused"
	ReasonDeviceUnknown    Reason = "device_unknown"  // enrol first (modes other than Open)
	ReasonDevicePending    Reason = "device_pending"  // enrolled, not approved
	ReasonRevoked          Reason = "revoked"         // person, group, device, certificate or session: nothing is left
	ReasonRoleRevoked      Reason = "role_revoked"    // a role; the session goes on with what it holds besides
	ReasonClusterRevoked   Reason = "cluster_revoked" // one cluster; the others stay open
	ReasonSessionEnded     Reason = "session_ended"
	ReasonLoginRequired    Reason = "login_required"
	ReasonClusterUnknown   Reason = "cluster_unknown" // does not exist or must not be seen
	ReasonClusterDisabled  Reason = "cluster_disabled"
	ReasonClusterDown      Reason = "cluster_unreachable"
	ReasonPolicyDenied     Reason = "policy_denied"  // an explicit Deny
	ReasonPolicyDefault    Reason = "policy_default" // nothing allows it
	ReasonBuiltinDenied    Reason = "builtin_denied"
	ReasonImpersonation    Reason = "impersonation_refused" // client sent Impersonate-*
	ReasonRBACStale        Reason = "RBACStale"             // zt's own account lacks a right
	ReasonMalformed        Reason = "malformed"
	ReasonTooLarge         Reason = "too_large"
	ReasonWrongHost        Reason = "wrong_host"
	ReasonMethod           Reason = "method_not_allowed"
	ReasonUpgrade          Reason = "upgrade_refused"
	ReasonLimit            Reason = "limit"
	ReasonUpstream         Reason = "upstream_failed"
	ReasonUpstreamTimeout  Reason = "upstream_timeout"
	ReasonAuditFailed      Reason = "audit_failed"
	ReasonStoreFailed      Reason = "store_failed"
	ReasonClockSkew        Reason = "clock_skew"
	ReasonClientTooOld     Reason = "client_too_old"
	ReasonShuttingDown     Reason = "shutting_down"
	ReasonInternal         Reason = "internal"
)

// Status is the HTTP status that goes with r unless a caller knows better.
func (r Reason) Status() int {
	switch r {
	case ReasonUnauthenticated, ReasonTokenExpired, ReasonTokenInvalid, ReasonIdPUnreachable:
		return http.StatusUnauthorized
	case ReasonMalformed, ReasonUpgrade:
		return http.StatusBadRequest
	case ReasonTooLarge:
		return http.StatusRequestEntityTooLarge
	case ReasonWrongHost:
		return http.StatusMisdirectedRequest
	case ReasonMethod:
		return http.StatusMethodNotAllowed
	case ReasonLimit:
		return http.StatusTooManyRequests
	case ReasonUpstream:
		return http.StatusBadGateway
	case ReasonUpstreamTimeout:
		return http.StatusGatewayTimeout
	case ReasonClusterDown, ReasonAuditFailed, ReasonStoreFailed, ReasonShuttingDown:
		return http.StatusServiceUnavailable
	case ReasonInternal:
		return http.StatusInternalServerError
	default:
		return http.StatusForbidden
	}
}

// Refusal is a decision against somebody, as a value. Message says what and by
// which policy, Hint the next command; neither holds a secret nor names what
// the person may not see.
type Refusal struct {
	Reason   Reason     `json:"reason"`
	Message  string     `json:"message"`
	Hint     string     `json:"hint,omitempty"`
	Policy   string     `json:"policy,omitempty"`
	Decision DecisionID `json:"decision,omitempty"`
	// Code overrides Reason.Status when not zero.
	Code int `json:"code,omitempty"`
	// Cause is for the log of the process that refuses, and never leaves it.
	Cause string `json:"-"`
}

// Refuse makes a Refusal with a formatted message.
func Refuse(r Reason, hint, format string, args ...any) *Refusal {
	return &Refusal{Reason: r, Hint: hint, Message: fmt.Sprintf(format, args...)}
}

// Error is the message and, in brackets, the hint.
func (r *Refusal) Error() string {
	if r.Hint == "" {
		return r.Message
	}
	return r.Message + " (" + r.Hint + ")"
}

// Status is the HTTP status to answer with.
func (r *Refusal) Status() int {
	if r.Code != 0 {
		return r.Code
	}
	return r.Reason.Status()
}
