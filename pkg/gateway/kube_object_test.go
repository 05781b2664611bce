package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// admins makes the role all of everything an administrator's, too.
var admins = everything + `---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: zt-admin}
spec: {users: ["*"], device: {tiers: [none, software]}}
`

const (
	bindingsPath = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	rolesPath    = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
	servicesPath = "/apis/apiregistration.k8s.io/v1/apiservices"
	crdsPath     = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	csrPath      = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
)

// protobufBinding binds an account of namespace, as client-go would send it.
func protobufBinding(t *testing.T, namespace string) string {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, rbacv1.AddToScheme(scheme))
	var b bytes.Buffer
	must(t, protobuf.NewSerializer(scheme, scheme).Encode(&rbacv1.ClusterRoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: "mine"},
		RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: "zt-impersonate"}},
	}, &b))
	return b.String()
}

// protobufPartial is a kind of which only the metadata is known here, as protobuf.
func protobufPartial(t *testing.T, apiVersion, kind, name string) string {
	t.Helper()
	meta := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}
	raw, err := meta.Marshal()
	must(t, err)
	unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}, Raw: append(raw, 0x12, 2, 0x0A, 0)} // and a spec
	all, err := unknown.Marshal()
	must(t, err)
	return "k8s\x00" + string(all)
}

// TestOwnObjectsByBody: a name that stands in the body alone, and whom a binding
// binds, is judged in every form in which a client may send it; what passes goes
// on byte by byte.
func TestOwnObjectsByBody(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: admins})
	alice, admin := r.person("alice@example.com"), r.person("root@example.com", "all", "zt-admin")
	const (
		json, yaml, proto       = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
		merge, strategic, apply = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"
		patchPath               = bindingsPath + "/cluster-admin"
		own                     = `{"kind":"ServiceAccount","namespace":"zt-system","name":"zt-impersonate"}`
		other                   = `{"kind":"ServiceAccount","namespace":"dev","name":"zt-impersonate"}`
		binding                 = `{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"mine"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[`
	)
	for name, test := range map[string]struct {
		method, path, contentType, body string
		want                            int // 200 as well as nothing is passed on
	}{
		"binding":                        {"POST", bindingsPath, json, binding + own + `]}`, 403},
		"binding, harmless":              {"POST", bindingsPath, json, binding + other + `]}`, 200},
		"without a content type":         {"POST", bindingsPath, "", binding + own + `]}`, 403},
		"with a charset":                 {"POST", bindingsPath, json + "; charset=utf-8", binding + own + `]}`, 403},
		"without kind and version":       {"POST", bindingsPath, json, `{"metadata":{"name":"mine"},"subjects":[` + own + `]}`, 403},
		"the second of two lists":        {"POST", bindingsPath, json, `{"metadata":{"name":"mine"},"subjects":[` + other + `],"subjects":[` + own + `]}`, 403},
		"letters of another case":        {"POST", bindingsPath, json, `{"metadata":{"name":"mine"},"Subjects":[` + own + `]}`, 200}, // no field to Kubernetes
		"another kind":                   {"POST", bindingsPath, json, `{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"mine"}}`, 400},
		"a list":                         {"POST", bindingsPath, json, `{"kind":"List","apiVersion":"v1","items":[` + binding + own + `]}]}`, 400},
		"no object":                      {"POST", bindingsPath, json, `[]`, 400},
		"nothing":                        {"POST", bindingsPath, json, ``, 400},
		"half":                           {"POST", bindingsPath, json, binding, 400},
		"yaml":                           {"POST", bindingsPath, yaml, "metadata: {name: mine}\nsubjects:\n- kind: ServiceAccount\n  namespace: &n zt-system\n  name: x\n", 403},
		"yaml, harmless":                 {"POST", bindingsPath, yaml, "metadata: {name: mine}\nsubjects:\n- kind: ServiceAccount\n  namespace: dev\n  name: x\n", 200},
		"protobuf":                       {"POST", bindingsPath, proto, protobufBinding(t, "zt-system"), 403},
		"protobuf, harmless":             {"POST", bindingsPath, proto, protobufBinding(t, "dev"), 200},
		"JSON said to be protobuf":       {"POST", bindingsPath, proto, binding + own + `]}`, 400},
		"cbor":                           {"POST", bindingsPath, "application/cbor", "\xa0", 403},
		"a form":                         {"POST", bindingsPath, "application/x-www-form-urlencoded", "a=b", 403},
		"a content type in bits":         {"POST", bindingsPath, `application/json;"`, binding + other + `]}`, 403},
		"zt's role":                      {"POST", bindingsPath, json, `{"metadata":{"name":"mine"},"roleRef":{"name":"zt-impersonate"}}`, 403},
		"update":                         {"PUT", patchPath, json, `{"metadata":{"name":"cluster-admin"},"subjects":[` + own + `]}`, 403},
		"update, harmless":               {"PUT", patchPath, json, `{"metadata":{"name":"cluster-admin"},"subjects":[` + other + `]}`, 200},
		"merge patch":                    {"PATCH", patchPath, merge, `{"subjects":[` + own + `]}`, 403},
		"strategic patch":                {"PATCH", patchPath, strategic, `{"subjects":[{"$patch":"replace"},` + own + `]}`, 403},
		"apply":                          {"PATCH", patchPath + "?fieldManager=x&force=true", apply, binding + own + `]}`, 403},
		"apply, in YAML":                 {"PATCH", patchPath + "?fieldManager=x", apply, "subjects:\n- {kind: ServiceAccount, namespace: zt-system, name: x}\n", 403},
		"labels":                         {"PATCH", patchPath, merge, `{"metadata":{"labels":{"a":null}}}`, 200},
		"JSON patch":                     {"PATCH", patchPath, "application/json-patch+json", `[{"op":"add","path":"/subjects/-","value":` + own + `}]`, 403},
		"patch without a content type":   {"PATCH", patchPath, "", `{"subjects":[` + own + `]}`, 403},
		"a role binding":                 {"POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/dev/rolebindings", json, `{"metadata":{"name":"mine"},"subjects":[` + own + `]}`, 403},
		"a role binding, old version":    {"POST", "/apis/rbac.authorization.k8s.io/v1beta1/namespaces/dev/rolebindings", json, `{"metadata":{"name":"mine"},"subjects":[` + own + `]}`, 403},
		"a version that nobody knows":    {"POST", "/apis/rbac.authorization.k8s.io/v9/namespaces/dev/rolebindings", json, `{"metadata":{"name":"mine"}}`, 403},
		"a cluster role":                 {"POST", rolesPath, json, `{"metadata":{"name":"zt-impersonate"},"rules":[]}`, 403},
		"a cluster role, generated name": {"POST", rolesPath, json, `{"metadata":{"generateName":"zt-"},"rules":[]}`, 403},
		"a cluster role, harmless":       {"POST", rolesPath, json, `{"metadata":{"name":"mine"},"rules":[{"verbs":["get"]}],"unknown":1}`, 200},
		"an API service":                 {"POST", servicesPath, json, `{"kind":"APIService","apiVersion":"apiregistration.k8s.io/v1","metadata":{"name":"v1alpha1.kube-zt.io"},"spec":{"group":"kube-zt.io"}}`, 403},
		"an API service, protobuf":       {"POST", servicesPath, proto, protobufPartial(t, "apiregistration.k8s.io/v1", "APIService", "v1alpha1.kube-zt.io"), 403},
		"an API service, harmless":       {"POST", servicesPath, proto, protobufPartial(t, "apiregistration.k8s.io/v1", "APIService", "v1.example.com"), 200},
		"a definition":                   {"POST", crdsPath, json, `{"metadata":{"name":"devices.kube-zt.io"},"spec":{"group":"kube-zt.io"}}`, 403},
		"a definition, dry run":          {"POST", crdsPath + "?dryRun=All", yaml, "metadata:\n  name: devices.kube-zt.io\n", 403},
		"a definition, harmless":         {"POST", crdsPath, json, `{"metadata":{"name":"devices.example.com"},"spec":{"group":"example.com"}}`, 200},
		"approval":                       {"PUT", csrPath + "/x/approval", json, `{}`, 403},
		"signing":                        {"PATCH", csrPath + "/x/status", merge, `{}`, 403},
		"a request for a certificate":    {"POST", csrPath, json, `{}`, 200},
		"a request for a node's":         {"POST", csrPath, json, `{"metadata":{"name":"x"},"spec":{"signerName":"kubernetes.io/kube-apiserver-client-kubelet"}}`, 403},
		"a request for a person's":       {"POST", csrPath, yaml, "spec: {signerName: kubernetes.io/kube-apiserver-client}\n", 200},
		"a role of everybody's":          {"POST", rolesPath, json, `{"metadata":{"name":"system:discovery"},"rules":[]}`, 403},
		"a built-in API":                 {"POST", servicesPath, json, `{"metadata":{"name":"v1.authentication.k8s.io"},"spec":{"service":{}}}`, 403},
		"long and harmless":              {"POST", bindingsPath, json, binding + other + `]` + strings.Repeat(" ", 1<<20) + `}`, 200},
		"too long":                       {"POST", bindingsPath, json, binding + other + `]` + strings.Repeat(" ", maxRequestBody) + `}`, 413},
	} {
		t.Run(name, func(t *testing.T) {
			ask := func(p *person, chunked bool) reply {
				var body io.Reader = strings.NewReader(test.body)
				if chunked {
					body = struct{ io.Reader }{body}
				}
				request := p.request(test.method, test.path, body)
				if test.contentType != "" {
					request.Header.Set("Content-Type", test.contentType)
				}
				protocol := "h2"
				if chunked {
					protocol = "http/1.1"
				}
				return r.do(p.http(protocol), request)
			}
			for _, chunked := range []bool{false, true} {
				got := ask(alice, chunked)
				if got.code != test.want {
					t.Fatalf("%d %s, want %d", got.code, got.body, test.want)
				}
				if test.want != http.StatusOK {
					r.upstream.none()
					if test.want == http.StatusForbidden && r.outcome(got.decision).Reason != wire.ReasonBuiltinDenied {
						t.Errorf("%s", got.body)
					}
					continue
				}
				sum := sha256.Sum256([]byte(test.body))
				if seen := r.upstream.one(); seen.Body != test.body && seen.Body != hex.EncodeToString(sum[:]) {
					t.Errorf("judged %q, sent %q", test.body, seen.Body)
				}
			}
			if len(test.body) > maxRequestBody {
				return
			}
			if got := ask(admin, false); got.code != http.StatusOK {
				t.Errorf("as zt-admin: %d %s", got.code, got.body)
			}
			r.upstream.seen()
		})
	}
}

// TestCutWhileTheBodyIsRead: a body that never ends holds no revocation up.
func TestCutWhileTheBodyIsRead(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{manifests: admins})
			alice := r.person("alice@example.com")
			body, more := io.Pipe()
			defer more.Close()
			request := alice.request(http.MethodPost, bindingsPath, body)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if response, err := alice.http(protocol).Do(request); err == nil {
					response.Body.Close()
				}
			}()
			_, err := io.WriteString(more, `{"metadata":`)
			must(t, err)
			r.eventually("it is registered", func() bool { return len(r.registry.Live()) == 2 }) // connection and request
			began := time.Now()
			r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{Role: "all"}}}, wire.Epoch{Generation: 1, Sequence: 99})
			r.eventually("the outcome", func() bool {
				records := r.records()
				return len(records) == 1 && records[0].Reason == wire.ReasonRoleRevoked
			})
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("cut after %s", took)
			}
			more.Close()
			<-ended
			r.upstream.none()
		})
	}
}

// TestYAMLThatGrows: what is short as it is sent and long as it is meant is refused
// before anything writes it out.
func TestYAMLThatGrows(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: admins})
	alice := r.person("alice@example.com")
	// 100 KiB a thousand times: an honest decoder makes 100 MiB of it.
	grows := "metadata: {name: mine}\na: &a " + strings.Repeat("x", 100<<10) + "\nb: [" + strings.Repeat("*a,", 1000) + "]\n"
	for name, test := range map[string]struct {
		method, path, contentType, body string
		want                            int
	}{
		"create":                      {"POST", bindingsPath, "application/yaml", grows, 403},
		"create, in UTF-16":           {"POST", bindingsPath, "application/yaml", utf16LE(grows[:1000] + grows[100<<10:]), 403},
		"apply":                       {"PATCH", bindingsPath + "/mine?fieldManager=x", "application/apply-patch+yaml", grows, 403},
		"both signs in JSON":          {"PATCH", bindingsPath + "/mine?fieldManager=x", "application/apply-patch+yaml", `{"metadata":{"name":"mine","annotations":{"a":"&a *a"}}}`, 200},
		"an anchor that nobody names": {"POST", bindingsPath, "application/yaml", "metadata: {name: &n mine}\n", 200},
		"long":                        {"POST", bindingsPath, "application/yaml", "metadata: {name: mine}\n" + strings.Repeat("# nothing\n", maxYAML/10), 403},
	} {
		t.Run(name, func(t *testing.T) {
			request := alice.request(test.method, test.path, strings.NewReader(test.body))
			request.Header.Set("Content-Type", test.contentType)
			got := r.do(alice.http("h2"), request)
			if got.code != test.want {
				t.Fatalf("%d %s, want %d", got.code, got.body, test.want)
			}
			if test.want == http.StatusOK {
				r.upstream.one()
				return
			}
			r.upstream.none()
			if reason := r.outcome(got.decision).Reason; reason != wire.ReasonBuiltinDenied {
				t.Errorf("%s: %s", reason, got.body)
			}
		})
	}
}

// utf16LE is s with a byte order mark, as YAML may come.
func utf16LE(s string) string {
	b := []byte{0xFF, 0xFE}
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return string(b)
}

// TestHeldObjects: one person has a few bodies read into memory at a time, and
// keeps nobody else out; each place comes back with the end of its request.
func TestHeldObjects(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: admins})
	alice, other := r.person("alice@example.com"), r.person("bob@example.com", "all")
	const harmless = `{"metadata":{"name":"mine"},"subjects":[]}`
	bind := func(p *person) int {
		return r.do(p.http("h2"), p.request(http.MethodPost, bindingsPath, strings.NewReader(harmless))).code
	}
	client := alice.http("h2")
	var ends []*io.PipeWriter
	codes := make(chan int, heldObjectsPerPerson)
	for range heldObjectsPerPerson {
		body, more := io.Pipe()
		ends = append(ends, more)
		request := alice.request(http.MethodPost, bindingsPath, body)
		go func() {
			response, err := client.Do(request)
			if err != nil {
				codes <- 0
				return
			}
			response.Body.Close()
			codes <- response.StatusCode
		}()
		_, err := io.WriteString(more, harmless[:10])
		must(t, err)
	}
	r.eventually("all are being read", func() bool { return r.kube.held.Open() == heldObjectsPerPerson })
	if code := bind(alice); code != http.StatusTooManyRequests {
		t.Errorf("one more: %d", code)
	}
	if code := bind(other); code != http.StatusOK {
		t.Errorf("somebody else: %d", code)
	}
	for _, more := range ends {
		_, err := io.WriteString(more, harmless[10:])
		must(t, err)
		more.Close()
	}
	for range ends {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one of those that were read: %d", code)
		}
	}
	r.eventually("all have left", func() bool { return r.kube.held.Open() == 0 })
	if code := bind(alice); code != http.StatusOK {
		t.Errorf("afterwards: %d", code)
	}
}
