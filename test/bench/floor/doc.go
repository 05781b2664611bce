// Package floor holds the least programs that do a part of what zt does, each to
// be measured beside zt in a process of its own, so that CPU time and memory can
// be told apart:
//
//   - Proxy: the least impersonating proxy. net/http/httputil's ReverseProxy, two
//     HTTP/2 connections upstream, a token check that is remembered by hash, a pool
//     of 32 KiB buffers, an ECDSA P-256 certificate.
//   - ChainGateway and ChainLaptop: the same proxy behind a loopback CONNECT and a
//     mutual-TLS connection per client connection, ended in the proxy's process.
//   - DaisyGateway and DaisyLaptop: the same proxy behind a loopback CONNECT and
//     one warm mutual-TLS HTTP/2 connection that carries a CONNECT stream per
//     client connection: zt's shape without any of zt's decisions.
//   - Upstream: the real API server behind a pass-through that answers one exec by
//     itself, with as many bytes as asked for, as fast as it can.
//   - Agent: answers every connection on a unix socket with one document, for the
//     least credential helper.
//
// They decide nothing and protect nothing: no policy, audit, revocation, limits or
// time-outs. They only ever listen on loopback.
package floor
