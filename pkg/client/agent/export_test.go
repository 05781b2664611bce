package agent

// WriteLimit is for a client to take one frame.
const WriteLimit = writeLimit

// Secrets returns every secret that the agent holds, for the tests that look for
// them where they must not be.
func (a *Agent) Secrets() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for n, r := range a.sessions {
		st, err := r.Export()
		if err != nil || st == nil {
			continue
		}
		out = append(out, st.IDToken, st.Access, st.Refresh, a.ports.secret(n))
	}
	return out
}

// ForgetOwners makes the agent believe that its system does not tell whose a
// connection is.
func (a *Agent) ForgetOwners() { a.ownersKnown = false }
