package wire

import "time"

// Discovery is what an agent learns at first contact, over a connection whose
// certificate was pinned or WebPKI-valid, and fixes in its profile.
type Discovery struct {
	TrustDomain string `json:"trustDomain"`
	Domain      string `json:"domain"`
	// GatewayCA is the PEM certificate of the gateway's own server CA, under
	// which tunnel.DOMAIN and control always stand.
	GatewayCA     string    `json:"gatewayCA"`
	OIDC          OIDC      `json:"oidc"`
	Enrolment     string    `json:"enrolment"`
	Time          time.Time `json:"time"`
	MinimumClient string    `json:"minimumClient,omitempty"`
}

// OIDC tells the agent how its user logs in.
type OIDC struct {
	Issuer     Issuer   `json:"issuer"`
	ClientID   string   `json:"clientID"`
	Scopes     []string `json:"scopes"`
	CA         string   `json:"ca,omitempty"` // PEM; empty: system roots
	DeviceCode bool     `json:"deviceCode,omitempty"`
}

// DeviceNonce is stateless, an HMAC over its own time, good for 60 s.
type DeviceNonce struct {
	Nonce string    `json:"nonce"`
	Time  time.Time `json:"time"`
}

// Purposes of a device statement.
const (
	PurposeLogin  = "login"
	PurposeEnroll = "enroll"
	PurposeRenew  = "renew"
)

// DeviceStatement is signed by the device key (compact JWS, ES256, typ
// "zt-device+jwt", public key in the "jwk" header).
type DeviceStatement struct {
	Purpose  string `json:"purpose"`
	Audience string `json:"aud"` // trust domain
	Nonce    string `json:"nonce"`
	IssuedAt int64  `json:"iat"` // Unix seconds, gateway's clock
	// Proof is the thumbprint of the proof key to be bound.
	Proof    Thumbprint `json:"proof"`
	Platform string     `json:"platform"` // GOOS
	Hostname string     `json:"hostname,omitempty"`
	Client   string     `json:"client,omitempty"` // kubectl-zt version
}

// DeviceCheckRequest carries a signed DeviceStatement.
type DeviceCheckRequest struct {
	Statement string `json:"statement"`
}

// DeviceCheck is the answer to a device that may go on to log in. TXN is sealed
// state of control, at most 10 min old when it comes back.
type DeviceCheck struct {
	TXN string `json:"txn"`
	// Nonce for the ID token: base64url(SHA-256(TXN ‖ jkt)).
	Nonce string    `json:"nonce"`
	Time  time.Time `json:"time"`
}

// EnrollRequest asks for a Device object for the key of the transaction. The
// ID token's nonce is the transaction's, so a person stands behind it.
type EnrollRequest struct {
	TXN     string `json:"txn"`
	IDToken string `json:"idToken"`
}

// DeviceState is what a person may know of his own device.
type DeviceState struct {
	ID        DeviceID `json:"id"`
	Phase     string   `json:"phase"` // Pending, Approved, Revoked
	Tier      string   `json:"tier"`
	Ownership string   `json:"ownership"`
	Owner     Username `json:"owner,omitempty"`
}

// SessionRequest asks for the first trust certificate of a session.
type SessionRequest struct {
	TXN     string `json:"txn"`
	IDToken string `json:"idToken"`
	// CSR is PKCS #10 PEM; only its key and its self-signature count.
	CSR        string `json:"csr"`
	DeviceCode bool   `json:"deviceCode,omitempty"`
}

// RenewRequest asks for a certificate for the same device key and session.
// Exactly one of IDToken and AccessToken (userinfo) is set when the issuer gave
// one; neither when it gives none. TXN and Certificate are set only on gw.DOMAIN.
type RenewRequest struct {
	CSR         string `json:"csr"`
	IDToken     string `json:"idToken,omitempty"`
	AccessToken string `json:"accessToken,omitempty"`
	TXN         string `json:"txn,omitempty"`
	Certificate string `json:"certificate,omitempty"`
}

// Certificate is an issued trust certificate.
type Certificate struct {
	// Chain is PEM, leaf first.
	Chain   string    `json:"chain"`
	Session SessionID `json:"session"`
	User    Username  `json:"user"`
	Device  DeviceID  `json:"device"`
	// Tier that the device has in this session, which may be less than its key's: a
	// login by device code need not have been at it.
	Tier     string    `json:"tier,omitempty"`
	NotAfter time.Time `json:"notAfter"`
	// SessionEnd is when renewal stops.
	SessionEnd time.Time `json:"sessionEnd"`
	Time       time.Time `json:"time"`
}

// TokenRequest names one cluster.
type TokenRequest struct {
	Cluster ClusterName `json:"cluster"`
}

// Token is an access token for one cluster, bound to the device key.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Time    time.Time `json:"time"`
}

// Cluster is one entry of the catalogue, as this person may see it.
type Cluster struct {
	Name        ClusterName       `json:"name"`
	UID         ClusterUID        `json:"uid"`
	DisplayName string            `json:"displayName,omitempty"`
	Description string            `json:"description,omitempty"`
	Link        string            `json:"link,omitempty"`
	Hidden      bool              `json:"hidden,omitempty"`
	Autorun     bool              `json:"autorun,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// Server is the URL for kubeconfig: https://NAME.DOMAIN.
	Server string `json:"server"`
	CA     string `json:"ca"`     // PEM of the cluster's own server CA
	State  string `json:"state"`  // reachable, unreachable
	Access string `json:"access"` // Enabled, Disabled
	// Policy is "no policy", "Enforcing" or "Permissive until …".
	Policy          string `json:"policy"`
	Roles           []Role `json:"roles,omitempty"`
	ListenPort      int    `json:"listenPort,omitempty"`
	ListenPortFixed bool   `json:"listenPortFixed,omitempty"`
}

// States of a cluster.
const (
	StateReachable   = "reachable"
	StateUnreachable = "unreachable"
	// StateUnknown is the laptop's own word while it cannot ask the gateway.
	StateUnknown = "unknown"
)

// ClusterList is the catalogue.
type ClusterList struct {
	Clusters []Cluster `json:"clusters"`
}

// Kinds of Event.
const (
	EventPing     = "ping"     // every 15 s
	EventClusters = "clusters" // the catalogue, at the start and on change
	EventSession  = "session"  // this session changed or ended
)

// Event is one JSON line of PathEvents.
type Event struct {
	Kind     string         `json:"kind"`
	Clusters []Cluster      `json:"clusters,omitempty"`
	Session  *SessionChange `json:"session,omitempty"`
	Time     time.Time      `json:"time"`
}

// SessionChange subtracts: Removed roles at once, or everything when Ended.
type SessionChange struct {
	Session SessionID `json:"session"`
	Epoch   Epoch     `json:"epoch"`
	Removed []Role    `json:"removed,omitempty"`
	Ended   bool      `json:"ended,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	// Cause and Hint are those of the refusal that ended it: a login does not
	// help whom an administrator has locked out.
	Cause Reason `json:"cause,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// RenewPeer shows the edge a renewed certificate. Chain is PEM.
type RenewPeer struct {
	Chain string `json:"chain"`
}

// TokenClaims of an access token (JWT, ES256, typ "at+jwt").
type TokenClaims struct {
	Issuer   string     `json:"iss"`
	Subject  Subject    `json:"sub"`
	Audience ClusterUID `json:"aud"`
	Expiry   int64      `json:"exp"`
	IssuedAt int64      `json:"iat"`
	ID       string     `json:"jti"`
	Session  SessionID  `json:"sid"`
	Epoch    Epoch      `json:"epoch"`
	// User is the person at his own issuer.
	User  User   `json:"user"`
	Roles []Role `json:"roles"`
	// Revoked are roles that the person would hold, were they not taken from him.
	// They give nothing; what policies deny to them they go on denying.
	Revoked  []Role   `json:"revoked_roles,omitempty"`
	Device   Device   `json:"dev"`
	AMR      []string `json:"amr,omitempty"`
	AuthTime int64    `json:"auth_time,omitempty"`
	Confirm  struct {
		JKT Thumbprint `json:"jkt"`
	} `json:"cnf"`
}
