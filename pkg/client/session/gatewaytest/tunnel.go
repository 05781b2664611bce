package gatewaytest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Cluster is what stands behind a CONNECT. Its handler answers requests as long
// as their token was minted for it.
type Cluster struct {
	wire.Cluster
	CA      *Authority
	Handler http.Handler // nil: says who is asking
	Tokens  map[string]wire.SessionID
	inbox   *inbox
	g       *Gateway
}

// inbox is a net.Listener that streams are put into.
type inbox struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (i *inbox) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.done:
		return nil, net.ErrClosed
	}
}
func (i *inbox) Close() error   { i.once.Do(func() { close(i.done) }); return nil }
func (i *inbox) Addr() net.Addr { return &net.TCPAddr{} }

// AddCluster makes a reachable cluster.
func (g *Gateway) AddCluster(name wire.ClusterName) *Cluster {
	host := string(name) + "." + Domain
	ca := NewAuthority(g.t, host)
	c := &Cluster{
		Cluster: wire.Cluster{
			Name: name, UID: wire.ClusterUID("uid-" + rand.Text()), Server: "https://" + host, CA: ca.PEM,
			State: wire.StateReachable, Access: "Enabled", Policy: "Enforcing", Roles: []wire.Role{"any-employee"},
		},
		CA: ca, Tokens: map[string]wire.SessionID{}, g: g,
		inbox: &inbox{conns: make(chan net.Conn), done: make(chan struct{})},
	}
	g.With(func(s *State) { s.Clusters[name] = c })
	g.inner.Go(func() {
		ctx := stopped(g)
		server := &http.Server{Handler: http.HandlerFunc(c.answer), ErrorLog: log.New(io.Discard, "", 0)}
		defer context.AfterFunc(ctx, func() { server.Close() })()
		_ = server.Serve(c.inbox)
	})
	return c
}

func (c *Cluster) answer(w http.ResponseWriter, r *http.Request) {
	var handler http.Handler
	var sid wire.SessionID
	c.g.With(func(*State) {
		handler = c.Handler
		sid = c.Tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	})
	if handler != nil {
		handler.ServeHTTP(w, r)
		return
	}
	if sid == "" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, "%s on %s", sid, c.Name)
}

// tunnel is tunnel.: CONNECT, and the renewal of the peer.
func (g *Gateway) tunnel(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Path == wire.PathRenewPeer {
		g.With(func(s *State) { s.PeerRenewals++ })
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	g.With(func(s *State) { s.Connects[r.Host]++ })
	if r.Host == "control:443" {
		g.stream(w, r, TrustDomain, "control", g.leaf, g.control())
		return
	}
	broken := false
	g.With(func(s *State) {
		if broken = s.BreakConnects > 0; broken {
			s.BreakConnects--
		}
	})
	if broken {
		panic(http.ErrAbortHandler)
	}
	no, hold := Read(g, func(s *State) *wire.Refusal { return s.RefuseConnect }), Read(g, func(s *State) time.Duration { return s.HoldConnect })
	select {
	case <-time.After(hold):
	case <-r.Context().Done():
		return
	}
	if no != nil {
		h2conn.Refuse(w, no)
		return
	}
	name := strings.TrimSuffix(strings.TrimSuffix(r.Host, ":443"), "."+Domain)
	c := Read(g, func(s *State) *Cluster { return s.Clusters[wire.ClusterName(name)] })
	if c == nil {
		h2conn.Refuse(w, wire.Refuse(wire.ReasonClusterUnknown, "kubectl zt clusters", "no such cluster"))
		return
	}
	g.stream(w, r, string(c.UID), name+"."+Domain, c.CA.Leaf(g.t, name+"."+Domain), c.inbox)
}

// stream accepts by the real acceptor and puts the connection into to.
func (g *Gateway) stream(w http.ResponseWriter, r *http.Request, audience, name string, leaf *tls.Certificate, to *inbox) {
	s, err := h2conn.Accept(w, r)
	if err != nil {
		return
	}
	acceptor := &evidence.Acceptor{
		TrustDomain: TrustDomain, Audience: audience, ServerName: name, Now: g.Now, Replay: new(evidence.ReplayCache),
		Roots:       func() *x509.CertPool { return poolOf(g.Trust.Cert) },
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return leaf, nil },
	}
	g.inner.Go(func() {
		conn, peer, err := acceptor.Accept(stopped2(g, s), s)
		switch {
		case err != nil:
		case conn == nil:
			g.With(func(st *State) { st.Prefaces[r.Host]++ })
		case peer.Refusal != nil:
			conn.Close()
		default:
			select {
			case to.conns <- &peerConn{conn, peer.Proof.Identity}:
			case <-g.stop:
				conn.Close()
			}
		}
	})
	s.Run()
}

// stopped2 ends with the gateway or with the stream.
func stopped2(g *Gateway, s *h2conn.ServerStream) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	g.inner.Go(func() {
		defer cancel()
		select {
		case <-g.stop:
			s.Abort()
		case <-s.Done():
		}
	})
	return ctx
}

// peerConn carries who has been accepted. Wrapping costs HTTP/2, which the tests
// of this package's users do not need; control, which does, unwraps it.
type peerConn struct {
	*tls.Conn
	who trust.Identity
}

type whoKey struct{}

// control serves the control stream until the gateway stops.
func (g *Gateway) control() *inbox {
	in := &inbox{conns: make(chan net.Conn), done: make(chan struct{})}
	g.inner.Go(func() {
		select {
		case <-g.stop:
		case c := <-in.conns:
			p := c.(*peerConn)
			one := &once{conn: p.Conn, done: make(chan struct{})}
			server := &http.Server{
				Handler: http.HandlerFunc(g.serveControl), ErrorLog: log.New(io.Discard, "", 0),
				ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, whoKey{}, p.who) },
				ConnState: func(_ net.Conn, s http.ConnState) {
					if s == http.StateClosed {
						one.Close()
					}
				},
			}
			g.inner.Go(func() {
				select {
				case <-g.stop:
				case <-one.done:
				}
				server.Close()
			})
			_ = server.Serve(one)
			server.Close()
		}
	})
	return in
}

// once is a listener for one connection.
type once struct {
	conn net.Conn
	mu   sync.Mutex
	gone bool
	end  sync.Once
	done chan struct{}
}

func (o *once) Accept() (net.Conn, error) {
	o.mu.Lock()
	if !o.gone {
		o.gone = true
		o.mu.Unlock()
		return o.conn, nil
	}
	o.mu.Unlock()
	<-o.done
	return nil, net.ErrClosed
}
func (o *once) Close() error   { o.end.Do(func() { close(o.done) }); return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

func (g *Gateway) serveControl(w http.ResponseWriter, r *http.Request) {
	who := r.Context().Value(whoKey{}).(trust.Identity)
	s := Read(g, func(s *State) *Session { return s.Sessions[who.Session] })
	if s == nil || Read(g, func(*State) bool { return s.Ended }) {
		refuse(w, wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the session has ended"))
		return
	}
	switch r.URL.Path {
	case wire.PathToken:
		g.token(w, r, s)
	case wire.PathCertificate:
		if in, ok := read[wire.RenewRequest](w, r); ok {
			g.renew(w, s, in)
		}
	case wire.PathEvents:
		g.events(w, r)
	case wire.PathLogout:
		g.With(func(st *State) {
			s.Ended = true
			st.Logouts++
		})
		w.WriteHeader(http.StatusNoContent)
	case wire.PathDevice:
		reply(w, wire.DeviceState{ID: evidence.DeviceID(s.Key), Phase: "Approved", Tier: "software", Ownership: "personal", Owner: s.User.Name})
	default:
		http.NotFound(w, r)
	}
}

func (g *Gateway) token(w http.ResponseWriter, r *http.Request, s *Session) {
	in, ok := read[wire.TokenRequest](w, r)
	if !ok {
		return
	}
	broken := false
	g.With(func(s *State) {
		if broken = s.PanicOnToken || s.BreakTokens > 0; s.BreakTokens > 0 {
			s.BreakTokens--
		}
	})
	if broken {
		panic(http.ErrAbortHandler)
	}
	if no := Read(g, func(s *State) *wire.Refusal { return s.RefuseToken }); no != nil {
		refuse(w, no)
		return
	}
	token := "token-" + rand.Text()
	known := false
	g.With(func(st *State) {
		st.Minted++
		if c := st.Clusters[in.Cluster]; c != nil {
			c.Tokens[token], known = s.ID, true
		}
	})
	if !known {
		refuse(w, wire.Refuse(wire.ReasonClusterUnknown, "kubectl zt clusters", "no such cluster"))
		return
	}
	now := g.Now()
	reply(w, wire.Token{Token: token, Expires: now.Add(Read(g, func(s *State) time.Duration { return s.TokenLife })), Time: now})
}

// events pushes the catalogue and whatever Push and End give.
func (g *Gateway) events(w http.ResponseWriter, r *http.Request) {
	c := make(chan wire.Event, 16)
	g.With(func(*State) { g.hearing[c] = true })
	defer g.With(func(*State) { delete(g.hearing, c) })
	enc, ctl := json.NewEncoder(w), http.NewResponseController(w)
	c <- wire.Event{Kind: wire.EventClusters, Clusters: g.Catalogue(), Time: g.Now()}
	for {
		select {
		case e := <-c:
			if enc.Encode(e) != nil || ctl.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-g.stop:
			return
		}
	}
}

// Catalogue is what everybody sees.
func (g *Gateway) Catalogue() []wire.Cluster {
	return Read(g, func(s *State) []wire.Cluster {
		var list []wire.Cluster
		for _, c := range s.Clusters {
			list = append(list, c.Cluster)
		}
		return list
	})
}

// Push sends an event to everybody who listens; a zero one the catalogue.
func (g *Gateway) Push(e wire.Event) {
	if e.Kind == "" {
		e = wire.Event{Kind: wire.EventClusters, Clusters: g.Catalogue(), Time: g.Now()}
	}
	g.With(func(*State) {
		for c := range g.hearing {
			c <- e
		}
	})
}
