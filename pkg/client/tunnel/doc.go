// Package tunnel carries kubectl's bytes: from a loopback CONNECT proxy, over one
// warm HTTP/2 connection in mutual TLS, to the edge, one CONNECT stream for each
// of kubectl's connections.
//
// Trusted: nobody on the loopback side. The proxy speaks CONNECT and nothing
// else, to names of one profile and nothing else, for whoever shows that
// profile's secret; the secretless port (`tunnel --open`) serves only processes
// of the same user. What smells of a browser (Origin, Referer, Sec-Fetch-*, a
// Host that is not the target) is refused whatever it shows. The tests V066 to
// V070 hold that. The edge is trusted to relay and not to read: kubectl's TLS
// ends at the cluster, and in front of its first bytes goes a proof, signed by
// the session's proof key, that names exactly this handshake.
//
// A CONNECT is answered at once where the answer is all but certain, so that
// kubectl's handshake travels along with the request; what turns out to be
// refused then is remembered, for ten seconds or until the session or the clusters
// change, and told to the next attempt in the reason phrase, the one text of a proxy
// that stock clients print.
package tunnel
