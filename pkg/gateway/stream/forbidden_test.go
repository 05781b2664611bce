package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	ownAccount = "system:serviceaccount:zt-system:zt-impersonate"
	ownText    = `User "` + ownAccount + `" cannot impersonate-on:user-info:list resource "pods" in API group "" at the cluster scope`
)

// forbidden is the API server's 403 about resource/name, in a form.
func forbidden(t *testing.T, mediaType string, resource schema.GroupResource, name, text string, changes ...func(*metav1.Status)) *http.Response {
	t.Helper()
	status := apierrors.NewForbidden(resource, name, errors.New(text)).Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	for _, change := range changes {
		change(&status)
	}
	var body []byte
	var err error
	switch mediaType {
	case "application/yaml":
		body, err = yaml.Marshal(status)
	case "application/vnd.kubernetes.protobuf":
		scheme := runtime.NewScheme()
		metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
		var b bytes.Buffer
		err = protobuf.NewSerializer(scheme, scheme).Encode(&status, &b)
		body = b.Bytes()
	default:
		body, err = json.Marshal(status)
	}
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(impersonate.WithIdentity(t.Context(), &impersonate.Identity{User: "zt:alice"}), http.MethodGet, "https://x/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {mediaType}}, Body: io.NopCloser(bytes.NewReader(body)), Request: request}
}

// TestForbidden: only the API server's own answer about the gateway's own account
// is one. A name in the request, an application behind a proxy sub-resource or a
// webhook could write anything into a 403.
func TestForbidden(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	pods, none := schema.GroupResource{Resource: "pods"}, schema.GroupResource{}
	extras := schema.GroupResource{Group: "authentication.k8s.io", Resource: "userextras"}
	trick := `x" is forbidden: ` + ownText
	for name, test := range map[string]struct {
		mediaType string
		resource  schema.GroupResource
		name      string
		text      string
		change    func(*http.Response)
		status    func(*metav1.Status)
		proxied   bool
		anybody   bool // the account's name is not known
		stale     bool
	}{
		"resource":                     {json, pods, "", ownText, nil, nil, false, false, true},
		"with a charset":               {json + "; charset=utf-8", pods, "", ownText, nil, nil, false, false, true},
		"as a protobuf":                {"application/vnd.kubernetes.protobuf", pods, "", ownText, nil, nil, false, false, true},
		"as YAML":                      {"application/yaml", pods, "", ownText, nil, nil, false, false, true},
		"named":                        {json, pods, "web", ownText, nil, nil, false, false, true},
		"an odd name":                  {json, pods, `w"eb`, ownText, nil, nil, false, false, true},
		"URL":                          {json, none, "", `User "` + ownAccount + `" cannot impersonate-on:user-info:get path "/metrics"`, nil, nil, false, false, true},
		"extra key":                    {json, extras, "blue", `User "` + ownAccount + `" cannot impersonate:user-info resource "userextras/x"`, nil, nil, false, false, true},
		"legacy":                       {json, schema.GroupResource{Resource: "groups"}, "zt:dev", `User "` + ownAccount + `" cannot impersonate resource "groups" in API group "" at the cluster scope`, nil, nil, false, false, true},
		"an account of no known name":  {json, pods, "", `User "x509-name" cannot impersonate resource "users"`, nil, nil, false, true, true},
		"another account":              {json, pods, "", `User "system:serviceaccount:other:x" cannot impersonate resource "users"`, nil, nil, false, false, false},
		"the person":                   {json, pods, "", `User "zt:alice" cannot list resource "pods"`, nil, nil, false, false, false},
		"the person, impersonating":    {json, pods, "", `User "zt:alice" cannot impersonate resource "users"`, nil, nil, false, true, false},
		"another verb":                 {json, pods, "", `User "` + ownAccount + `" cannot list resource "pods"`, nil, nil, false, false, false},
		"a verb that begins so":        {json, pods, "", `User "` + ownAccount + `" cannot impersonated resource "pods"`, nil, nil, false, false, false},
		"a pod's name":                 {json, pods, "impersonate-on:user-info:get", `User "zt:alice" cannot get resource "pods"`, nil, nil, false, false, false},
		"a pod's name with all of it":  {json, pods, trick, `User "zt:alice" cannot get resource "pods"`, nil, nil, false, false, false},
		"the same, protobuf":           {"application/vnd.kubernetes.protobuf", pods, trick, `User "zt:alice" cannot get resource "pods"`, nil, nil, false, false, false},
		"an application":               {json, pods, "", ownText, nil, nil, true, false, false},
		"not a 403":                    {json, pods, "", ownText, func(r *http.Response) { r.StatusCode = http.StatusNotFound }, nil, false, false, false},
		"text":                         {"text/plain", pods, "", ownText, nil, nil, false, false, false},
		"no type":                      {json, pods, "", ownText, func(r *http.Response) { r.Header.Del("Content-Type") }, nil, false, false, false},
		"JSON said to be protobuf":     {json, pods, "", ownText, func(r *http.Response) { r.Header.Set("Content-Type", runtime.ContentTypeProtobuf) }, nil, false, false, false},
		"no Status":                    {json, pods, "", ownText, nil, func(s *metav1.Status) { s.Kind = "Pod" }, false, false, false},
		"another reason":               {json, pods, "", ownText, nil, func(s *metav1.Status) { s.Reason = metav1.StatusReasonInvalid }, false, false, false},
		"details of something else":    {json, pods, "", ownText, nil, func(s *metav1.Status) { s.Details.Kind = "secrets" }, false, false, false},
		"a webhook's text":             {json, pods, "", ownText, nil, func(s *metav1.Status) { s.Message = `admission webhook "x" denied the request: ` + s.Message }, false, false, false},
		"a webhook's text and details": {json, schema.GroupResource{Resource: `admission webhook "x" denied the request: pods`}, "", ownText, nil, nil, false, false, false},
		"an admission policy's":        {json, pods, "web", `ValidatingAdmissionPolicy 'x' denied request: pods is forbidden: ` + ownText, nil, nil, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var changes []func(*metav1.Status)
			if test.status != nil {
				changes = append(changes, test.status)
			}
			response := forbidden(t, test.mediaType, test.resource, test.name, test.text, changes...)
			if test.change != nil {
				test.change(response)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			response.Body = io.NopCloser(bytes.NewReader(body))
			u := &Upstream{account: func() string { return ownAccount }}
			if test.anybody {
				u.account = func() string { return "" }
			}
			err = u.clean(response, test.proxied)
			if (err != nil) != test.stale {
				t.Fatalf("%v, want a refusal: %t", err, test.stale)
			}
			var failed *Failure
			if test.stale && (!errors.As(err, &failed) || failed.Kind != KindRBAC || failed.Refusal.Reason != wire.ReasonRBACStale) {
				t.Errorf("%+v", err)
			}
			if after, _ := io.ReadAll(response.Body); !bytes.Equal(after, body) {
				t.Errorf("the body is now %q", after)
			}
		})
	}
}

// TestForbiddenThatGrows: an extension's answer that is short as it comes and long
// as it is meant is not looked into, and passes as it is.
func TestForbiddenThatGrows(t *testing.T) {
	t.Parallel()
	response := forbidden(t, "application/yaml", schema.GroupResource{Resource: "pods"}, "", ownText)
	plain, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	body := string(plain) + "a: &a " + strings.Repeat("x", 32<<10) + "\nb: [" + strings.Repeat("*a,", 1000) + "]\n"
	response.Body = io.NopCloser(strings.NewReader(body))
	u := &Upstream{account: func() string { return ownAccount }}
	if err := u.clean(response, false); err != nil {
		t.Errorf("it was written out: %v", err)
	}
	if after, _ := io.ReadAll(response.Body); string(after) != body {
		t.Errorf("the body is now %d bytes, of %d", len(after), len(body))
	}
}
