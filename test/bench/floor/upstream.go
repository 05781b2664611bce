package floor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
)

// BulkPod is the name of the pod whose exec the Upstream answers by itself, in
// any namespace: with command=download and command=N it sends N bytes after the
// upgrade, in frames that look like SPDY's, with command=upload and command=N it
// reads N of whatever and then says BulkDone.
const (
	BulkPod  = "bulk"
	BulkDone = "done"
)

// serveUpstream passes requests to the API server as they are, credentials
// included, but for the exec of BulkPod.
func serveUpstream(config Config) (string, error) {
	target, err := url.Parse(config.Server)
	if err != nil {
		return "", err
	}
	pass := &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		Transport:  newTransports(config.ServerCA),
		BufferPool: &buffers{},
		ErrorLog:   log.New(discard{}, "", 0),
	}
	tlsConfig, err := config.Keys.ServerTLS(false, "h2", "http/1.1")
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go serveHTTP(listener, tlsConfig, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/pods/"+BulkPod+"/exec") {
			serveBulk(w, r)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	return listener.Addr().String(), nil
}

func serveBulk(w http.ResponseWriter, r *http.Request) {
	command := r.URL.Query()["command"]
	if len(command) != 2 || r.Header.Get("Upgrade") == "" {
		http.Error(w, "want an upgrade and two commands", http.StatusBadRequest)
		return
	}
	size, err := strconv.ParseInt(command[1], 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	conn, buffer, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n"); err != nil {
		return
	}
	switch command[0] {
	case "download":
		_ = Send(conn, size)
		// Who closes first may take away what is still under way.
		_, _ = io.Copy(io.Discard, conn)
	case "upload":
		if err := Receive(buffer, size); err == nil {
			_, _ = io.WriteString(conn, BulkDone)
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

// Send writes size bytes as SPDY data frames of 32 KiB, the size of a kubelet's: who
// follows the borders of frames shall have as many to follow.
func Send(w io.Writer, size int64) error {
	const payload = 32 << 10
	frame := binary.BigEndian.AppendUint32(nil, 3) // stream
	frame = binary.BigEndian.AppendUint32(frame, payload)
	frame = append(frame, bytes.Repeat([]byte("zt"), payload/2)...)
	for size > 0 {
		n, err := w.Write(frame[:min(size, int64(len(frame)))])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// Receive reads exactly size bytes.
func Receive(r io.Reader, size int64) error {
	piece := make([]byte, 32<<10)
	for size > 0 {
		n, err := r.Read(piece[:min(size, int64(len(piece)))])
		size -= int64(n)
		if err != nil && size > 0 {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
	}
	return nil
}
