package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// garbageRecords is how many streams a second that proved nothing are
	// recorded. The metrics count every one; a line for each would let a stranger
	// fill the disk, and without the audit log nothing goes any more.
	garbageRecords = 10
	// strangerRecords is the same for requests that nobody is known to make, which
	// only the direct name can have.
	strangerRecords = 20
)

// ServeStream implements edge.Backend.
func (k *Kube) ServeStream(ctx context.Context, conn net.Conn, notes edge.Notes) {
	secure, peer, err := k.acceptor.Accept(ctx, conn)
	if err != nil {
		k.notAccepted(err, notes)
		return
	}
	if peer.Proof != nil && peer.Refusal == nil {
		k.renew(&peer.Proof.Identity)
	}
	if secure == nil {
		return // a renewal, which opens nothing
	}
	l := k.links.add(ctx, secure, peer, notes)
	if !k.inbox.Give(ctx, secure) {
		l.close()
	}
	stop := context.AfterFunc(ctx, func() {
		l.cut(wire.Refuse(wire.ReasonShuttingDown, "try again", "the connection ends"))
	})
	<-l.done
	stop()
}

// notAccepted records a stream that proved nothing, if there are not too many of
// them. One that never said anything is a health check, and no event.
func (k *Kube) notAccepted(err error, notes edge.Notes) {
	if errors.Is(err, io.EOF) {
		k.o.Metrics.Handshake(notes.Regime, "empty")
		return
	}
	k.o.Metrics.Handshake(notes.Regime, "refused")
	// What strangers send must not hide what somebody in a tunnel does.
	budget := k.garbage
	if notes.Regime == edge.RegimeDirect {
		budget = k.directGarbage
	}
	if !budget.AllowN(k.o.Now(), 1) {
		return
	}
	record := audit.Record{
		Event: audit.EventStream, Cluster: k.name, Decision: audit.Refused, Reason: wire.ReasonProofInvalid,
		Source: address(notes), Regime: notes.Regime, Session: notes.Session, Device: notes.Device,
		Error: audit.Clip(err.Error(), 300),
	}
	_ = k.o.Audit.Event(record)
}

func address(notes edge.Notes) string {
	if !notes.Client.IsValid() {
		return ""
	}
	return notes.Client.Addr().Unmap().String()
}

// stranger is in whose name the requests of nobody are counted: an IPv4 address,
// or an IPv6 site. Shares are equal among holders, so whoever has many addresses
// must not be many.
func stranger(notes edge.Notes) string {
	sources := limit.Sources(notes.Client.Addr())
	return "source " + sources[len(sources)-1].String()
}

// directTLS is for streams without a preface, whatever the edge calls them.
// There are no kubeconfig certificates yet, so none is accepted.
func (k *Kube) directTLS() *tls.Config {
	certificate := k.o.Certificate
	if c := k.cluster(k.o.Snapshot()); c == nil || !c.Spec.Direct {
		certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errDirectOff }
	}
	return trust.DirectServer(certificate, x509.NewCertPool, k.o.TrustDomain, k.name)
}

var errDirectOff = errors.New("the stream has no proof, and the cluster's direct name is off")
