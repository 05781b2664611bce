// Package stream carries a judged request to the kube-apiserver and its answer
// back: ordinary requests over two HTTP/2 connections, upgrades over an HTTP/1.1
// connection of their own.
//
// By the time a request comes here it has been allowed, and its identity is in
// its context; this package must not let either side change that. Upstream it
// sends the very path and query that were judged and a header set that was built
// anew. From upstream it believes a 101 only for the protocol that was asked
// for, with the accept value that belongs to the key that was sent, and only
// then moves bytes; any other answer is relayed as an answer and both
// connections are closed (CVE-2018-1002105). Redirects are neither followed nor
// relayed (CVE-2020-8559, CVE-2022-3172). Cookies, challenges and interim
// responses of an upstream end here.
//
// The bytes of an upgraded stream are spliced and never decoded. Only the
// lengths of the frames that go to the client are followed, so that a stream
// that is cut can be told why between two frames: a WebSocket by a close frame
// 1008, SPDY by a Status on the error stream. From the moment of the cut not one
// more byte goes upstream.
package stream
