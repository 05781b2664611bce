// Package h2conn turns HTTP/2 CONNECT streams (RFC 9113, 8.5) into net.Conns: many
// on one warm connection, on the laptop's side by [Client.Connect], on the edge's
// by [Accept].
//
// A stream has real deadlines that can be set again after they have passed, a
// half-close, one owner who closes it, and it never panics, whoever is late.
// net/http's own streams have none of this: their deadlines cannot be taken back,
// only the handler's return ends a response, and a Write after that is a panic.
// So between a stream and net/http there is a small bounded buffer for each
// direction, and the http.ResponseWriter is only ever touched by the handler's own
// goroutine, in [ServerStream.Run].
//
// What is not there: a server cannot half-close and go on reading, for net/http
// resets a stream whose handler has returned. [ServerStream.CloseWrite] therefore
// ends the client's writing, too. Inside TLS, where close_notify is the
// half-close, this does not matter.
//
// This package trusts its peer with nothing but its own streams: buffers, frames
// and header lists are bounded, and a peer that has silently gone is noticed
// within 30 s by pings.
package h2conn
