package tunnel

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/wire"
)

// postLimit is for one connection to take the renewed certificate: the edge ends
// streams of the old one, so a dead connection must not keep the others waiting.
const postLimit = 5 * time.Second

// Renew shows the edge a renewed certificate (PEM) on each connection, on all at
// once. One on which it is not taken gets no more streams: new ones go over a new
// handshake.
func (o *Outer) Renew(ctx context.Context, chain string) {
	o.mu.Lock()
	links := slices.Clone(o.links)
	o.mu.Unlock()
	body, err := json.Marshal(wire.RenewPeer{Chain: chain})
	if err != nil {
		return
	}
	u := (&url.URL{Scheme: "https", Host: o.cfg.ServerName, Path: wire.PathRenewPeer}).String()
	var all sync.WaitGroup
	for _, l := range links {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, postLimit)
			defer cancel()
			if err := post(ctx, l, u, string(body)); err != nil {
				o.cfg.Log.Info("edge did not take the renewed certificate", "error", fault.Escape(err.Error()))
				l.Retire()
				o.nudge()
			}
		})
	}
	all.Wait()
}

func post(ctx context.Context, l *link, u, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	if resp.StatusCode >= 300 {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}
