package login_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdp/qrterminal/v3"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/test/idp"
)

// device runs a device login on a fake clock, against a provider in the same
// bubble. act plays the person, once the code is shown.
func device(t *testing.T, opts idp.Options, before func(*rig), act func(t *testing.T, r *rig, page, code string)) (tokens *login.Tokens, polls []time.Duration, err error) {
	t.Helper()
	r := start(t, opts)
	synctest.Test(t, func(t *testing.T) {
		r.cfg.Transport = r.Transport()
		if before != nil {
			before(r)
		}
		c, nerr := login.New(t.Context(), r.cfg)
		if nerr != nil {
			t.Fatal(nerr)
		}
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			tokens, err = c.DeviceCode(t.Context())
		}()
		synctest.Wait()
		if act != nil {
			lines := strings.Fields(r.stderr.String())
			var page, code string
			for i, w := range lines {
				if strings.HasPrefix(w, "https://") {
					page = w
				}
				if w == "code:" {
					code = lines[i+1]
				}
			}
			act(t, r, page, code)
		}
		<-done
		for _, at := range r.DevicePolls() {
			polls = append(polls, at.Sub(began))
		}
	})
	return tokens, polls, err
}

func approve(t *testing.T, r *rig, page, code string) {
	if err := r.InProcessBrowser().ApproveDevice(t.Context(), page, code, "alice"); err != nil {
		t.Error(err)
	}
}

func TestV013DeviceCode(t *testing.T) {
	t.Parallel()
	const s = time.Second
	t.Run("approved", func(t *testing.T) {
		t.Parallel()
		tokens, polls, err := device(t, idp.Options{SecondFactor: true}, nil, func(t *testing.T, r *rig, page, code string) {
			time.Sleep(7 * s)
			approve(t, r, page, code)
		})
		if err != nil {
			t.Fatal(err)
		}
		if tokens.Claims.Subject != "00u-alice-7f3a" || tokens.Claims.Nonce != "" || tokens.RefreshToken == "" {
			t.Errorf("tokens %+v", tokens)
		}
		if diff := cmp.Diff([]time.Duration{5 * s, 10 * s}, polls); diff != "" {
			t.Errorf("polls (-want +got):\n%s", diff)
		}
	})
	t.Run("slow_down", func(t *testing.T) {
		t.Parallel()
		_, polls, err := device(t, idp.Options{}, func(r *rig) { r.SetFaults(idp.Faults{SlowDown: 2}) }, func(t *testing.T, r *rig, page, code string) {
			time.Sleep(20 * s)
			approve(t, r, page, code)
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]time.Duration{5 * s, 15 * s, 30 * s}, polls); diff != "" {
			t.Errorf("polls (-want +got):\n%s", diff)
		}
	})
	t.Run("expired_token", func(t *testing.T) {
		t.Parallel()
		_, _, err := device(t, idp.Options{}, func(r *rig) { r.SetFaults(idp.Faults{DeviceError: "expired_token"}) }, nil)
		if !errors.Is(err, login.ErrTooLate) || fault.Of(err).Exit == 0 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("never approved", func(t *testing.T) {
		t.Parallel()
		_, polls, err := device(t, idp.Options{DeviceLife: 22 * s}, nil, nil)
		if !errors.Is(err, login.ErrTooLate) {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff([]time.Duration{5 * s, 10 * s, 15 * s, 20 * s}, polls); diff != "" {
			t.Errorf("polls (-want +got):\n%s", diff)
		}
	})
	t.Run("denied", func(t *testing.T) {
		t.Parallel()
		_, _, err := device(t, idp.Options{}, nil, func(t *testing.T, r *rig, page, code string) {
			if err := r.InProcessBrowser().DenyDevice(t.Context(), page, code, "alice"); err != nil {
				t.Error(err)
			}
		})
		if !errors.Is(err, login.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the code is shown and never opened", func(t *testing.T) {
		t.Parallel()
		opened := 0
		var shown, page string
		_, _, err := device(t, idp.Options{}, func(r *rig) {
			r.cfg.OpenBrowser = func(context.Context, string) error { opened++; return nil }
		}, func(t *testing.T, r *rig, at, code string) {
			shown, page = r.stderr.String(), at
			if strings.Contains(page, code) || strings.Contains(shown, "user_code=") {
				t.Errorf("the code is in the address: %s", page)
			}
			approve(t, r, page, code)
		})
		if err != nil || opened != 0 {
			t.Errorf("%v, browser opened %d times", err, opened)
		}
		var qr bytes.Buffer
		qrterminal.GenerateHalfBlock(page, qrterminal.L, &qr)
		if !strings.Contains(shown, qr.String()) {
			t.Errorf("the QR code is not that of %s:\n%s", page, shown)
		}
	})
	t.Run("a poll that times out halves the pace", func(t *testing.T) {
		t.Parallel()
		_, polls, err := device(t, idp.Options{}, func(r *rig) {
			r.SetFaults(idp.Faults{Delay: time.Hour, On: []idp.Endpoint{idp.Token}})
		}, func(t *testing.T, r *rig, page, code string) {
			time.Sleep(20 * s)
			r.SetFaults(idp.Faults{})
			approve(t, r, page, code)
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]time.Duration{5 * s, 45 * s}, polls); diff != "" {
			t.Errorf("polls (-want +got):\n%s", diff)
		}
	})
}

// TestHostileDeviceAuthorization has the provider answer what no terminal should
// show and no client should follow.
func TestHostileDeviceAuthorization(t *testing.T) {
	t.Parallel()
	good := map[string]any{
		"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://idp.test/device",
		"expires_in": 600, "interval": 5,
	}
	tests := []struct {
		name, field string
		value       any
	}{
		{"negative interval", "interval", -1},
		{"endless interval", "interval", 1 << 40},
		{"no device code", "device_code", ""},
		{"no user code", "user_code", ""},
		{"escapes in the code", "user_code", "\x1b[2J"},
		{"code of a page", "user_code", strings.Repeat("A", 65)},
		{"http page", "verification_uri", "http://idp.test/device"},
		{"no page", "verification_uri", ""},
		{"page with the code in it", "verification_uri", "https://idp.test/device?user_code=ABCD-EFGH"},
		{"page that looks like another", "verification_uri", "https://idp.test/\u202eecived"},
		{"page of 2 KB", "verification_uri", "https://idp.test/" + strings.Repeat("a", 2048)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			answer := map[string]any{}
			for k, v := range good {
				answer[k] = v
			}
			answer[tt.field] = tt.value
			r.cfg.Transport = answering{base: r.Transport(), path: "/device_authorization", json: answer}
			_, err := r.client(t).DeviceCode(t.Context())
			if !errors.Is(err, login.ErrUntrusted) {
				t.Errorf("got %v", err)
			}
			if strings.ContainsAny(r.stderr.String()+err.Error(), "\x1b\u202e") {
				t.Errorf("shown: %q, %q", r.stderr, err)
			}
		})
	}
}
