// Package env starts a real Kubernetes control plane for tests, the demo and the
// bench: etcd, kube-apiserver, kube-controller-manager, simulated nodes (kwok)
// and one node whose containers are local processes, all of the pinned versions
// of test/controlplane, on loopback, in one directory.
//
// A test binary shares one control plane; TestMain stops it:
//
//	func TestMain(m *testing.M) { os.Exit(env.Main(m)) }
//
//	func TestList(t *testing.T) {
//		cp := env.Shared(t)
//		token, err := cp.ServiceAccountToken(t.Context(), "zt", "zt-impersonate", time.Hour)
//		…
//		stdout, stderr, err := cp.Kubectl(t.Context(), "get", "pods")
//	}
//
// A program, or a test that needs its own (other flags, restarts), calls Start
// and Stop. Options says what to leave out: etcd and the API server alone are
// ready in about two seconds. The programs are built on first use, which takes
// minutes and says so on stderr, and are then cached outside the tree; set
// ZT_TEST_CACHE where HOME is not that of the person.
//
// # What is trusted
//
// Nothing here protects anything worth having, but two things hold, because the
// tests lean on them. Only loopback is used, and no port is guessed: the API
// server's is held by a socket of ours before it starts and across restarts, etcd
// listens on a socket file only, the node's listener is opened by ourselves, the
// rest listen nowhere. And every process that Start begins belongs to one process
// group, whose leader kills it when the pipe to this process breaks: also when
// this process is killed with SIGKILL (TestKilled). The stream node runs what a
// pod says as the user who runs the test; who may create pods there may do all
// that the user may.
//
// Keys and certificates are made at every start, in four authorities: for the API
// server, for clients, for the node's server and for its one client, so that a
// certificate of one purpose proves nothing for another.
package env
