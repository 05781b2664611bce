package audit

import (
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// Kind is what a line says of the thing it names.
type Kind string

const (
	KindIntent  Kind = "intent"  // about to happen
	KindOutcome Kind = "outcome" // has happened, or was refused
	KindEvent   Kind = "event"   // something that is not a request to a cluster
)

// Decision is the verdict in an outcome.
type Decision string

const (
	Allowed Decision = "allow"
	Refused Decision = "refuse"
)

// Event is the closed list of what is logged beside requests to clusters.
type Event string

const (
	EventDeviceCheck    Event = "device_check"
	EventAuthn          Event = "authn"
	EventDeviceEnrolled Event = "device_enrolled"
	EventDeviceChanged  Event = "device_changed"
	EventSession        Event = "session_issued"
	EventRenewed        Event = "session_renewed"
	EventLogout         Event = "logout"
	EventToken          Event = "token_issued"
	EventRevoked        Event = "revoked"
	EventReload         Event = "configuration"
	EventTunnel         Event = "tunnel"
	EventStream         Event = "stream" // a stream that died before its first request
	EventStarted        Event = "started"
	EventStopped        Event = "stopped"
)

// Record is one line. Empty fields are left out; the names are what people
// query, so they are stable.
type Record struct {
	Time time.Time       `json:"time"` // UTC; set by the log when zero
	Kind Kind            `json:"kind"` // set by the log
	ID   wire.DecisionID `json:"id,omitempty"`

	Event Event `json:"event,omitempty"`

	// Who.
	User      *wire.User     `json:"user,omitempty"`
	Claimed   *wire.User     `json:"claimed,omitempty"` // the token's person where he is not the stream's
	Device    wire.DeviceID  `json:"device,omitempty"`
	Tier      string         `json:"tier,omitempty"`
	Session   wire.SessionID `json:"session,omitempty"`
	Roles     []wire.Role    `json:"roles,omitempty"`
	Source    string         `json:"source,omitempty"` // address as the edge saw it
	Regime    string         `json:"regime,omitempty"`
	UserAgent string         `json:"userAgent,omitempty"`

	// What.
	Cluster     wire.ClusterName `json:"cluster,omitempty"`
	Method      string           `json:"method,omitempty"`
	Path        string           `json:"path,omitempty"` // never with its query
	Verb        string           `json:"verb,omitempty"`
	APIGroup    string           `json:"apiGroup,omitempty"`
	Resource    string           `json:"resource,omitempty"`
	Subresource string           `json:"subresource,omitempty"`
	Namespace   string           `json:"namespace,omitempty"`
	Name        string           `json:"name,omitempty"`
	Upgrade     string           `json:"upgrade,omitempty"`
	// Command is the head of an exec command; CommandHash is SHA-256 of all of
	// it, in hex, when the head is not the whole.
	Command     string `json:"command,omitempty"`
	CommandHash string `json:"commandHash,omitempty"`

	// Verdict.
	Decision  Decision    `json:"decision,omitempty"`
	Reason    wire.Reason `json:"reason,omitempty"`
	Message   string      `json:"message,omitempty"`
	Policy    string      `json:"policy,omitempty"`
	Rule      int         `json:"rule,omitempty"` // counted from 1
	Version   string      `json:"version,omitempty"`
	WouldDeny bool        `json:"wouldDeny,omitempty"`

	// Result.
	Code       int           `json:"code,omitempty"`
	BytesIn    int64         `json:"bytesIn,omitempty"`  // from the client
	BytesOut   int64         `json:"bytesOut,omitempty"` // to the client
	Duration   time.Duration `json:"-"`
	DurationMS float64       `json:"durationMs,omitempty"` // set by the log from Duration
	Error      string        `json:"error,omitempty"`

	// Detail holds what only some events have. Never a secret.
	Detail map[string]string `json:"detail,omitempty"`
}
