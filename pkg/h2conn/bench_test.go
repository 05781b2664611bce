//go:build unix

package h2conn

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"

	"golang.org/x/net/http2"

	"github.com/kube-zt/zt/pkg/trust"
)

// bulk is how much BenchmarkBulk sends on one stream, in bytes.
const bulk = 64 << 20

// BenchmarkBulk sends large bodies both ways through one stream, in pieces of the
// size that TLS inside the stream writes.
func BenchmarkBulk(b *testing.B) {
	piece := make([]byte, 16<<10+22)
	send := func(w io.Writer) error {
		for sent := 0; sent < bulk; sent += len(piece) {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		return nil
	}
	b.Run("down", func(b *testing.B) {
		server := serveStreams(b, func(s *ServerStream) { send(s) })
		client := server.dial(b)
		b.SetBytes(bulk)
		defer perMB(b, cpu())
		for b.Loop() {
			stream := connect(b, client)
			if n, err := io.Copy(io.Discard, stream); err != nil || n < bulk {
				b.Fatal(n, err)
			}
			stream.Close()
		}
	})
	b.Run("up", func(b *testing.B) {
		server := serveStreams(b, func(s *ServerStream) {
			n, _ := io.Copy(io.Discard, s)
			fmt.Fprint(s, n)
		})
		client := server.dial(b)
		b.SetBytes(bulk)
		defer perMB(b, cpu())
		for b.Loop() {
			stream := connect(b, client)
			if err := send(stream); err != nil {
				b.Fatal(err)
			}
			stream.CloseWrite()
			if answer, err := io.ReadAll(stream); err != nil || len(answer) == 0 {
				b.Fatal(string(answer), err)
			}
			stream.Close()
		}
	})
}

// BenchmarkOpen opens a stream, sends one byte along with the CONNECT, reads it
// back and closes.
func BenchmarkOpen(b *testing.B) {
	server := serveStreams(b, func(s *ServerStream) { io.Copy(s, s) })
	client := server.dial(b)
	for b.Loop() {
		stream, err := client.Connect(context.Background(), "prod:443", nil)
		if err != nil {
			b.Fatal(err)
		}
		one := []byte{1}
		stream.Write(one)
		if _, err := io.ReadFull(stream, one); err != nil {
			b.Fatal(err)
		}
		stream.CloseWrite()
		io.Copy(io.Discard, stream)
		stream.Close()
	}
}

// BenchmarkFloor is what BenchmarkBulk/down stands beside: the same bytes over the
// same HTTP/2 without a net.Conn around it, and over a TLS connection of their own.
func BenchmarkFloor(b *testing.B) {
	piece := make([]byte, 16<<10+22)
	send := func(w io.Writer, flush func()) {
		for sent := 0; sent < bulk; sent += len(piece) {
			w.Write(piece)
			flush()
		}
	}
	b.Run("http2", func(b *testing.B) {
		server := serveHTTP(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			send(w, w.(http.Flusher).Flush)
		}))
		conn, err := net.Dial("tcp", server.addr)
		if err != nil {
			b.Fatal(err)
		}
		secure := tls.Client(conn, trust.TunnelClient("tunnel.example.com", server.roots, nil))
		client, err := new(http2.Transport).NewClientConn(secure)
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close()
		b.SetBytes(bulk)
		defer perMB(b, cpu())
		for b.Loop() {
			request, _ := http.NewRequestWithContext(b.Context(), "CONNECT", "https://prod:443", http.NoBody)
			response, err := client.RoundTrip(request)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, response.Body); err != nil || n < bulk {
				b.Fatal(n, err)
			}
			response.Body.Close()
		}
	})
	b.Run("tls", func(b *testing.B) {
		certificate, roots := serverCertificate(b, "tunnel.example.com")
		listener, err := tls.Listen("tcp", "127.0.0.1:0", trust.GatewayServer(certificate))
		if err != nil {
			b.Fatal(err)
		}
		defer listener.Close()
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				send(conn, func() {})
				conn.Close()
			}
		}()
		b.SetBytes(bulk)
		defer perMB(b, cpu())
		for b.Loop() {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			secure := tls.Client(conn, trust.TunnelClient("tunnel.example.com", roots, nil))
			if n, err := io.Copy(io.Discard, secure); err != nil || n < bulk {
				b.Fatal(n, err)
			}
			secure.Close()
		}
	})
}

// cpu is the processor time that this process has used, in milliseconds: the
// steadiest figure on a machine that does other things as well.
func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e6
}

func perMB(b *testing.B, since float64) {
	b.ReportMetric((cpu()-since)/float64(b.N)/(bulk/1e6), "cpu-ms/MB")
}
