package env

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// auditPolicy records every request with its metadata, once, when it is complete
// (a watch or stream also when it begins), but for those of the control plane's
// own parts.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:apiserver, system:kube-controller-manager, system:kwok, system:node:` + NodeName + `]
- level: None
  nonResourceURLs: [/readyz]
- level: Metadata
`

// Audit returns the events of the audit log for which match returns true, in the
// order of the log.
func (cp *ControlPlane) Audit(match func(*auditv1.Event) bool) ([]auditv1.Event, error) {
	content, err := os.ReadFile(cp.AuditLog)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	var events []auditv1.Event
	for line := range bytes.Lines(content) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // is being written
		}
		var event auditv1.Event
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if match(&event) {
			events = append(events, event)
		}
	}
	return events, nil
}
