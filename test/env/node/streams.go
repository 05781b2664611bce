package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	// idleLimit ends a stream on which nothing moves, as a kubelet does by default.
	idleLimit = 4 * time.Hour
	// openLimit is how long the API server may take to open the streams of a call.
	openLimit = remotecommand.DefaultStreamCreationTimeout
)

// handler serves the paths that the API server uses, and no others of a kubelet.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	for _, method := range []string{"GET", "POST"} { // WebSocket and SPDY
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", n.serveExec)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", n.serveAttach)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", n.servePortForward)
	}
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", n.serveLogs)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.do(func() { mux.ServeHTTP(w, r) })
	})
}

// find returns the pod and container that a request names.
func (n *Node) find(r *http.Request) (*pod, *container, error) {
	key := podKey{r.PathValue("namespace"), r.PathValue("pod")}
	n.mu.Lock()
	p := n.pods[key]
	n.mu.Unlock()
	if p == nil {
		return nil, nil, fmt.Errorf("pod %s/%s does not run here", key.namespace, key.name)
	}
	c := p.container(r.PathValue("container"))
	if c == nil {
		return nil, nil, fmt.Errorf("pod %s/%s has no container %q", key.namespace, key.name, r.PathValue("container"))
	}
	return p, c, nil
}

func (n *Node) serveExec(w http.ResponseWriter, r *http.Request) {
	p, c, options, ok := n.findStreams(w, r)
	if !ok {
		return
	}
	remotecommand.ServeExec(w, r, executor{p, c}, p.key.name, string(p.uid), c.name, r.URL.Query()["command"],
		options, idleLimit, openLimit, remotecommand.SupportedStreamingProtocols)
}

func (n *Node) serveAttach(w http.ResponseWriter, r *http.Request) {
	p, c, options, ok := n.findStreams(w, r)
	if !ok {
		return
	}
	remotecommand.ServeAttach(w, r, attacher{c}, p.key.name, string(p.uid), c.name,
		options, idleLimit, openLimit, remotecommand.SupportedStreamingProtocols)
}

func (n *Node) findStreams(w http.ResponseWriter, r *http.Request) (*pod, *container, *remotecommand.Options, bool) {
	p, c, err := n.find(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return nil, nil, nil, false
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, nil, nil, false
	}
	return p, c, options, true
}

type executor struct {
	pod       *pod
	container *container
}

func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, args []string, in io.Reader, out, errOut io.WriteCloser,
	terminal bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	code, err := e.pod.exec(ctx, e.container, args, terminal, in, writer(out), writer(errOut), sizes)
	if err == nil && code != 0 {
		err = utilexec.CodeExitError{Err: fmt.Errorf("exit status %d", code), Code: code}
	}
	return err
}

type attacher struct{ container *container }

func (a attacher) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errOut io.WriteCloser,
	_ bool, sizes <-chan remotecommand.TerminalSize,
) error {
	return a.container.attach(ctx, in, writer(out), writer(errOut), sizes)
}

// writer keeps nil nil.
func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

func (n *Node) servePortForward(w http.ResponseWriter, r *http.Request) {
	p, _, err := n.find(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	options := &portforward.V4Options{}
	for _, text := range r.URL.Query()["port"] { // over WebSocket only
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			http.Error(w, fmt.Sprintf("port %q: %v", text, err), http.StatusBadRequest)
			return
		}
		options.Ports = append(options.Ports, int32(port))
	}
	portforward.ServePortForward(w, r, forwarder{r.Context()}, p.key.name, string(p.uid), options,
		idleLimit, openLimit, portforward.SupportedProtocols)
}

// forwarder carries the context of its request, which cri-streaming drops.
type forwarder struct{ ctx context.Context }

// PortForward connects the stream with a port of this machine, which is that of
// every pod, and closes each direction when its source has ended.
func (f forwarder) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	// Without probes: both ends are on this machine.
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(f.ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(f.ctx, func() { _ = c.Close() })()
	server := c.(*net.TCPConn)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(server, stream) // a server that reads no further is no error
		_ = server.CloseWrite()
	}()
	_, err = io.Copy(stream, server)
	_ = stream.Close()
	<-sent
	return err
}

var (
	_ remotecommand.Executor    = executor{}
	_ remotecommand.Attacher    = attacher{}
	_ portforward.PortForwarder = forwarder{}
)
