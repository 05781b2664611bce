// Package edge is the public side of the gateway: one TCP listener, three
// regimes that are told apart by the server name in the ClientHello and by
// nothing else.
//
//   - gw.DOMAIN, and a hello without a name: the handlers of control, no
//     client certificate.
//   - tunnel.DOMAIN: mutual TLS with a trust certificate, HTTP/2 only; CONNECT
//     to the names of clusters and to control, and the renewal of the
//     connection's own certificate. Everything else is 405.
//   - CLUSTER.direct.DOMAIN: the bytes go unread to the kube part, where the
//     cluster's direct name is switched on.
//
// A name that is none of these gets the certificate of gw.DOMAIN and 421.
//
// Trusted is the trust CA's signature on the outer certificate, together with
// the deny set, asked in the handshake and again at every CONNECT. Nothing that
// a client says is ever dialled or resolved: a name selects one of the fixed
// backends or is refused, and this package holds no dialler (a test reads its
// source for one). What the edge knows of a stream goes to the backend as
// [Notes], which allow nothing. The bytes of a tunnel are TLS of which the edge
// has no key.
//
// It fails closed: no hello within ten seconds, no handshake within ten, more
// connections without a certificate than the limit, a device over its limit of
// tunnels, a certificate past its end: the connection or the stream goes away.
package edge
