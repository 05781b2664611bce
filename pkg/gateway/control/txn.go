package control

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/verify"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// transactionLife is how long a person has for the login page.
	transactionLife = 10 * time.Minute
	sealTransaction = "login-transaction"
)

// transaction is what a device check has found, sealed and carried by the
// laptop to the next step.
type transaction struct {
	Purpose    string          `json:"purpose"`
	Thumbprint wire.Thumbprint `json:"jkt"`
	Device     wire.DeviceID   `json:"device"`
	Proof      wire.Thumbprint `json:"proof"`
	Tier       string          `json:"tier"`
	Platform   string          `json:"platform,omitempty"`
	Hostname   string          `json:"hostname,omitempty"`
	Issued     time.Time       `json:"issued"`
}

var errTransaction = errors.New("the transaction is not ours, of another kind, or too old")

func (c *Control) sealTransaction(d verify.Device) (string, error) {
	plain, err := json.Marshal(transaction{
		Purpose: d.Purpose, Thumbprint: d.Thumbprint, Device: d.ID, Proof: d.Proof, Tier: string(d.Tier),
		Platform: d.Platform, Hostname: d.Hostname, Issued: c.now().UTC(),
	})
	if err != nil {
		return "", fmt.Errorf("seal transaction: %v", err)
	}
	return c.o.Authorities.Seal(plain, sealTransaction)
}

// openTransaction returns the state of a transaction of the given purpose.
func (c *Control) openTransaction(sealed, purpose string) (transaction, error) {
	var t transaction
	plain, err := c.o.Authorities.Open(sealed, sealTransaction)
	if err != nil {
		return t, errTransaction
	}
	if err := json.Unmarshal(plain, &t); err != nil {
		return t, errTransaction
	}
	age := c.now().Sub(t.Issued)
	// Another replica's clock may be a little ahead of ours.
	if t.Purpose != purpose || age > transactionLife || age < -time.Minute {
		return t, errTransaction
	}
	return t, nil
}

// refuseTransaction is the answer to errTransaction.
func refuseTransaction() *wire.Refusal {
	return wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "this login took longer than %v or was not begun here", transactionLife)
}

// onceHash names something that may be used once without saying what it is.
func onceHash(kind string, what []byte) string {
	h := sha256.New()
	h.Write([]byte(kind + "\x00"))
	h.Write(what)
	return hex.EncodeToString(h.Sum(nil))
}
