package floor

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
)

// serveChainGateway accepts mutual TLS, reads one CONNECT and hands what follows
// to the proxy's own TLS in this process.
func serveChainGateway(config Config) (string, error) {
	handler, err := newProxy(config)
	if err != nil {
		return "", err
	}
	outer, err := config.Keys.ServerTLS(true)
	if err != nil {
		return "", err
	}
	inner, err := config.Keys.ServerTLS(false, "h2", "http/1.1")
	if err != nil {
		return "", err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", outer)
	if err != nil {
		return "", err
	}
	accepted := newHandover(listener.Addr())
	go serveHTTP(accepted, inner, handler)
	go acceptEach(listener, func(conn net.Conn) {
		reader, _, err := readConnect(conn)
		if err != nil {
			conn.Close()
			return
		}
		accepted.conns <- buffered{Conn: conn, reader: reader}
	})
	return listener.Addr().String(), nil
}

// serveChainLaptop accepts CONNECT on loopback and dials the gateway anew each
// time.
func serveChainLaptop(config Config) (string, error) {
	outer, err := config.Keys.ClientTLS(true)
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go acceptEach(listener, func(conn net.Conn) {
		defer conn.Close()
		reader, target, err := readConnect(conn)
		if err != nil {
			return
		}
		gateway, err := tls.Dial("tcp", config.Next, outer)
		if err != nil {
			return
		}
		defer gateway.Close()
		if err := connect(gateway, target); err != nil {
			return
		}
		splice(buffered{Conn: conn, reader: reader}, gateway)
	})
	return listener.Addr().String(), nil
}

func acceptEach(listener net.Listener, serve func(net.Conn)) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go serve(conn)
	}
}

// readConnect reads a CONNECT, says yes, and returns what must be read from
// instead of conn.
func readConnect(conn net.Conn) (*bufio.Reader, string, error) {
	reader := bufio.NewReader(conn)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return nil, "", err
	}
	if request.Method != http.MethodConnect {
		return nil, "", http.ErrNotSupported
	}
	_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	return reader, request.Host, err
}

// connect asks for target over an open connection. The answer is read byte by
// byte, so that nothing behind it is taken.
func connect(conn net.Conn, target string) error {
	if _, err := io.WriteString(conn, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n"); err != nil {
		return err
	}
	const yes = "HTTP/1.1 200 OK\r\n\r\n"
	answer := make([]byte, len(yes))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if string(answer) != yes {
		return http.ErrNotSupported
	}
	return nil
}

// splice copies both ways until either side ends.
func splice(a, b net.Conn) {
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, _ = io.CopyBuffer(onlyWriter{way[0]}, onlyReader{way[1]}, make([]byte, 32<<10))
			done <- struct{}{}
		}()
	}
	<-done
	a.Close()
	b.Close()
	<-done
}

// onlyWriter and onlyReader keep io.CopyBuffer from taking another way.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// buffered is a connection whose first bytes have been read already.
type buffered struct {
	net.Conn
	reader *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) {
	if b.reader.Buffered() > 0 {
		return b.reader.Read(p)
	}
	return b.Conn.Read(p)
}

// handover is a listener whose connections come from this process.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn)}
}

func (h *handover) Accept() (net.Conn, error) { return <-h.conns, nil }
func (h *handover) Close() error              { return nil }
func (h *handover) Addr() net.Addr            { return h.addr }
