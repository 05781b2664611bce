package evidence

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// defaultTimeout is for preface, hello and handshake together.
const defaultTimeout = 10 * time.Second

// Acceptor is the end of a stream: it reads the preface and does the TLS
// handshake that the preface vouches for. The kube part and control use the same
// one. Its fields must not change once Accept was called; Accept may be called
// concurrently.
type Acceptor struct {
	TrustDomain string
	// Audience is what a proof must be made for: the cluster's UID, or the trust
	// domain for control.
	Audience string
	// ServerName is the one SNI that is served; another is refused with 421.
	ServerName string
	// Roots is the trust pool of the moment.
	Roots func() *x509.CertPool
	// Certificate chooses the server leaf.
	Certificate trust.GetCertificate
	// Check is asked about each genuine proof, before the handshake; what it
	// returns becomes the peer's Refusal. Nil refuses nothing.
	Check func(*Proof) *wire.Refusal
	// Direct makes the configuration for streams without a preface. Nil: such a
	// stream is cut.
	Direct func() *tls.Config
	// Now is the gateway's clock; nil means time.Now.
	Now func() time.Time
	// Replay must be set. Acceptors of one audience share it.
	Replay *ReplayCache
	// Chains, if set, spares the verification of certificates seen before.
	Chains *ChainCache
	// Timeout is for preface, hello and handshake together; 0 means 10 s.
	Timeout time.Duration
}

// Peer is who stands at the other end of an accepted stream.
type Peer struct {
	// Proof is nil for a direct stream: nothing is known of the peer then.
	Proof *Proof
	// Refusal says why a genuine peer must not pass. The TLS handshake is done,
	// so that every request can be answered with it, whatever token it brings.
	Refusal *wire.Refusal
}

// Direct reports whether the stream came without a preface.
func (p *Peer) Direct() bool { return p.Proof == nil }

// Accept reads the preface and, unless it is a renewal, the ClientHello, decides,
// and does the handshake. It blocks for at most a.Timeout or until ctx is done.
//
// With an error the stream proves nothing, and conn is closed. For a renewal the
// *tls.Conn is nil, and conn is closed. Otherwise the caller owns the *tls.Conn,
// which is bare for net/http's sake and has no deadlines set.
func (a *Acceptor) Accept(ctx context.Context, conn net.Conn) (*tls.Conn, *Peer, error) {
	timeout := a.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// One way to end every read and write below, whichever limit is first.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	secure, peer, err := a.accept(ctx, conn)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	if secure == nil {
		conn.Close()
	}
	return secure, peer, nil
}

func (a *Acceptor) accept(ctx context.Context, conn net.Conn) (*tls.Conn, *Peer, error) {
	var head [len(magic)]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, nil, fmt.Errorf("read preface: %w", err)
	}
	if string(head[:]) != magic {
		return a.acceptDirect(ctx, conn, head[:])
	}
	jws, err := readProof(conn)
	if err != nil {
		return nil, nil, err
	}
	proof, err := verifyProof(jws, a.Roots(), a.TrustDomain, a.now(), a.Chains)
	var refusal *wire.Refusal
	if err != nil && !errors.As(err, &refusal) {
		return nil, nil, err
	}
	peer := a.peer(proof, refusal)
	if proof.Renew {
		return nil, peer, a.acceptRenewal(conn, peer)
	}
	hello, err := ReadHello(conn)
	if err != nil {
		return nil, nil, err
	}
	if sha256.Sum256(hello.Message) != proof.Hello {
		return nil, nil, errors.New("proof: made for another client hello")
	}
	groups, err := supported(hello.KeyShares)
	if err != nil {
		return nil, nil, err
	}
	if peer.Refusal == nil && hello.ServerName != a.ServerName {
		peer.Refusal = wire.Refuse(wire.ReasonWrongHost, "", "%q is not served here", hello.ServerName)
	}
	if err := a.once(peer); err != nil {
		return nil, nil, err
	}
	secure, err := handshake(ctx, conn, hello.Raw, trust.StreamServer(a.Certificate, groups))
	if err != nil {
		return nil, nil, err
	}
	if secure.ConnectionState().HelloRetryRequest {
		// Cannot happen after supported; if it does, the proof covers a hello
		// that no longer counts.
		return nil, nil, errors.New("tls: the handshake began anew")
	}
	return secure, peer, nil
}

// acceptDirect goes on with a stream that began with head and not with a preface.
func (a *Acceptor) acceptDirect(ctx context.Context, conn net.Conn, head []byte) (*tls.Conn, *Peer, error) {
	if a.Direct == nil || head[0] != recordHandshake {
		return nil, nil, fmt.Errorf("read preface: %w", ErrNoPreface)
	}
	secure, err := handshake(ctx, conn, head, a.Direct())
	if err != nil {
		return nil, nil, err
	}
	return secure, &Peer{}, nil
}

// acceptRenewal makes sure that nothing follows a renewal: it carries a newer
// certificate and opens nothing.
func (a *Acceptor) acceptRenewal(conn net.Conn, peer *Peer) error {
	var more [1]byte
	if n, err := io.ReadFull(conn, more[:]); n != 0 || !errors.Is(err, io.EOF) {
		return errors.New("renewal: something follows")
	}
	return a.once(peer)
}

// once refuses a proof that was let in before. One that is not let in is not
// remembered: it would only take room from those that are.
func (a *Acceptor) once(peer *Peer) error {
	if peer.Refusal != nil {
		return nil
	}
	if err := a.Replay.Add(peer.Proof, a.now()); err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	return nil
}

// peer adds to the refusal that VerifyProof found what only a knows.
func (a *Acceptor) peer(proof *Proof, refusal *wire.Refusal) *Peer {
	if refusal == nil && proof.Audience != a.Audience {
		refusal = wire.Refuse(wire.ReasonWrongCluster, "", "the proof of this connection is for another cluster")
	}
	if refusal == nil && a.Check != nil {
		refusal = a.Check(proof)
	}
	return &Peer{Proof: proof, Refusal: refusal}
}

func (a *Acceptor) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

// supported returns the groups of shares that Go can do, so that crypto/tls finds
// a key share for whatever it chooses and never asks for another hello.
func supported(shares []tls.CurveID) ([]tls.CurveID, error) {
	known := []tls.CurveID{
		tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024,
		tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521,
	}
	groups := slices.DeleteFunc(known, func(group tls.CurveID) bool { return !slices.Contains(shares, group) })
	if len(groups) == 0 {
		return nil, errors.New("client hello: no key share of a group that is known here")
	}
	return groups, nil
}

// handshake does TLS on conn, of which read was read already.
func handshake(ctx context.Context, conn net.Conn, read []byte, config *tls.Config) (*tls.Conn, error) {
	secure := tls.Server(&replayConn{Conn: conn, read: read}, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}
