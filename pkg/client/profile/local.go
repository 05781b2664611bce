package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// Local is what kubeconfigs on this machine were told of the loopback proxy: its
// port and each profile's secret. The secrets stand in the kubeconfigs anyway;
// kept here, they survive a restart of the agent. They open a port of this
// machine and nothing else.
type Local struct {
	Port    int             `json:"port"`
	Secrets map[Name]string `json:"secrets,omitempty"`
}

// LoadLocal returns the empty Local when there is none, and also when it cannot
// be understood: it is made anew.
func (h Home) LoadLocal() (Local, error) {
	data, err := ReadFile(h.tunnel())
	if errors.Is(err, fs.ErrNotExist) {
		return Local{}, nil
	}
	if err != nil {
		return Local{}, err
	}
	var l Local
	if json.Unmarshal(data, &l) != nil || l.Port < 0 || l.Port > 65535 {
		return Local{}, nil
	}
	return l, nil
}

// SaveLocal writes l.
func (h Home) SaveLocal(l Local) error {
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode tunnel state: %w", err)
	}
	return WriteFile(h.tunnel(), data)
}
