package edge

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// maxRenewal bounds a RenewPeer, in bytes, and maxChain its certificates.
	maxRenewal = 64 << 10
	maxChain   = 4
)

// renew takes a newer certificate for this connection: same key, same session,
// same proof key and same person, or 403. The connection then lives until the
// end of the latest certificate that was shown.
func (t *tunnel) renew(w http.ResponseWriter, r *http.Request) {
	defer t.recoverPanic()
	if refusal := t.gone(); refusal != nil {
		t.refusePlain(w, refusal)
		return
	}
	chain, err := renewalChain(http.MaxBytesReader(w, r.Body, maxRenewal))
	if err != nil {
		t.refusePlain(w, wire.Refuse(wire.ReasonMalformed, "", "renewal: %v", err))
		return
	}
	next, err := trust.VerifyTrustChain(chain, t.edge.o.Roots(), t.edge.o.TrustDomain, t.edge.o.Now())
	if err != nil {
		t.edge.log.Debug("renewal with a certificate that does not verify", "error", err)
		t.refusePlain(w, &wire.Refusal{Reason: wire.ReasonUnauthenticated, Code: http.StatusForbidden, Message: "the renewed certificate does not verify"})
		return
	}
	now := t.current()
	if next.Key != now.Key || next.Session != now.Session || next.Proof != now.Proof || !next.User.Same(now.User) {
		t.refusePlain(w, wire.Refuse(wire.ReasonBindingMismatch, "", "the renewed certificate is of another key or session"))
		return
	}
	if next.NotAfter.After(now.NotAfter) {
		if refusal := t.show(next); refusal != nil {
			t.refusePlain(w, refusal)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// renewalChain reads a RenewPeer.
func renewalChain(body io.Reader) ([]*x509.Certificate, error) {
	var message wire.RenewPeer
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&message); err != nil {
		return nil, errors.New("not the JSON that is wanted")
	}
	chain, err := trust.ParseCertificates([]byte(message.Chain))
	if err != nil {
		return nil, err
	}
	if len(chain) > maxChain {
		return nil, fmt.Errorf("more than %d certificates", maxChain)
	}
	return chain, nil
}
