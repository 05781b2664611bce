package wire

// Names of the three regimes under the gateway's domain. SNI alone chooses.
const (
	GatewayLabel = "gw"      // gw.DOMAIN: no client certificate
	TunnelLabel  = "tunnel"  // tunnel.DOMAIN: trust certificate required
	DirectLabel  = "direct"  // CLUSTER.direct.DOMAIN: passed through to the kube part
	ControlName  = "control" // CONNECT target and TLS name of control inside the tunnel
)

// ReservedClusterNames cannot be names of clusters.
var ReservedClusterNames = []ClusterName{GatewayLabel, TunnelLabel, DirectLabel, ControlName}

// Paths on gw.DOMAIN.
const (
	PathDiscovery    = "/zt/v1/discovery"     // GET  -> Discovery
	PathDeviceNonce  = "/zt/v1/device/nonce"  // POST -> DeviceNonce
	PathDeviceCheck  = "/zt/v1/device/check"  // POST DeviceCheckRequest -> DeviceCheck
	PathDeviceEnroll = "/zt/v1/device/enroll" // POST EnrollRequest -> DeviceState
	PathSession      = "/zt/v1/session"       // POST SessionRequest -> Certificate
	PathSessionRenew = "/zt/v1/session/renew" // POST RenewRequest -> Certificate; expired certificates only
	PathJWKS         = "/zt/v1/jwks"          // GET, control's public keys
)

// Paths on the control stream.
const (
	PathToken       = "/zt/v1/token"       // POST TokenRequest -> Token
	PathCertificate = "/zt/v1/certificate" // POST RenewRequest -> Certificate
	PathClusters    = "/zt/v1/clusters"    // GET -> ClusterList
	PathEvents      = "/zt/v1/events"      // GET -> Event lines, for as long as the stream lives
	PathLogout      = "/zt/v1/logout"      // POST -> 204
	PathDevice      = "/zt/v1/device"      // GET -> DeviceState
)

// PathRenewPeer on tunnel.DOMAIN: the agent shows the edge a renewed
// certificate for the same key and session. POST RenewPeer -> 204.
const PathRenewPeer = "/zt/v1/renew"

// Extra keys that go upstream with impersonation.
const (
	ExtraDevice   = "kube-zt.io/device"
	ExtraSession  = "kube-zt.io/session"
	ExtraClientIP = "kube-zt.io/client-ip"
)

// HeaderDecision carries the decision id of a refusal to clients that look.
const HeaderDecision = "Kube-Zt-Decision"
