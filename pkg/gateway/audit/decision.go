package audit

import (
	"crypto/rand"
	"encoding/base32"

	"github.com/kube-zt/zt/pkg/wire"
)

var decisionIDs = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewDecision is the id of a decision, wherever it is made: 80 random bits in 16
// letters and digits. Nobody can guess another's, and a person can type one.
func NewDecision() wire.DecisionID {
	var random [10]byte
	_, _ = rand.Read(random[:]) // never fails
	return wire.DecisionID(decisionIDs.EncodeToString(random[:]))
}
