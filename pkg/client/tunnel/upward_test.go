package tunnel

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestUpwardGathers: only what is short, follows something short and has much
// coming down beside it waits, and not longer than a moment.
func TestUpwardGathers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		before int           // bytes that went up first
		down   int           // bytes that came down since
		pause  time.Duration // until the next Read
		want   time.Duration // that it waits
	}{
		{"leave to send more, one after the other", 35, muchDown, 0, gatherFor},
		{"the rest of the moment", 35, muchDown, gatherFor / 4, gatherFor * 3 / 4},
		{"long ago", 35, muchDown, gatherFor, 0},
		{"little comes down", 35, muchDown - 1, 0, 0},
		{"much goes up", shortUp + 1, muchDown, 0, 0},
		{"the first", 0, muchDown, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				u := &upward{Conn: near, r: bufio.NewReaderSize(near, 16)}
				read := func(n int) {
					go func() { _, _ = far.Write(make([]byte, n)) }()
					if got, err := u.Read(make([]byte, 64<<10)); got != n || err != nil {
						t.Fatalf("%d bytes: %v", got, err)
					}
				}
				if tc.before > 0 {
					read(tc.before)
				}
				go func() { _, _ = far.Read(make([]byte, tc.down)) }()
				if _, err := u.downward().Write(make([]byte, tc.down)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(tc.pause)
				began := time.Now()
				read(35)
				if waited := time.Since(began); waited != tc.want {
					t.Errorf("waited %v, want %v", waited, tc.want)
				}
			})
		})
	}
}

// TestUpwardLosesNothing: what is gathered arrives whole and in order.
func TestUpwardLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		u := &upward{Conn: near, r: bufio.NewReader(near)}
		var want strings.Builder
		go func() {
			defer far.Close()
			for i := range 200 {
				word := strings.Repeat(string(rune('a'+i%26)), 1+i%40)
				want.WriteString(word)
				_, _ = far.Write([]byte(word))
			}
		}()
		var got bytes.Buffer
		b := make([]byte, 64<<10)
		for {
			u.down.Add(muchDown)
			n, err := u.Read(b)
			got.Write(b[:n])
			if err != nil {
				break
			}
		}
		if got.String() != want.String() {
			t.Errorf("got %d bytes, want %d", got.Len(), want.Len())
		}
	})
}
