package gateway

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/gateway/policy"
	"github.com/kube-zt/zt/pkg/gateway/stream"
	"github.com/kube-zt/zt/pkg/wire"
)

// A few requests cannot be judged without their body: which they are, and what
// in it counts, is policy's to say ([policy.Compiled.WantsObject]). They are read
// with Kubernetes' own decoders, told about the same defaults, so that both sides
// find the same in the same bytes; and what cannot be read is refused.

// What is read here is small when it is honest, and dear when it is not: three bytes
// of JSON make an element of 192, and in YAML a text can be said again in three
// bytes. So few are held at once, fewer are decoded at once, and YAML is short and
// says everything itself.
const (
	// heldObjects, in all and of one person, from the first byte of a body until the
	// request is over: 192 MiB and 24 MiB.
	heldObjects          = 64
	heldObjectsPerPerson = 8
	// decodedObjects at once, of all clusters, since memory is the process's.
	decodedObjects = 2
	// maxYAML is how long an object in YAML may be, in bytes. What stock clients call
	// YAML, to apply it, is JSON that comes nowhere near.
	maxYAML = 256 << 10
)

// decoding has a place for each object that is being decoded.
var decoding = make(chan struct{}, decodedObjects)

func newHeldObjects() *limit.Slots[string] {
	return limit.NewSlots(func() int { return heldObjects }, func(string) int { return heldObjectsPerPerson })
}

// objectReader decodes what policy asks for. It never changes.
type objectReader struct {
	scheme *runtime.Scheme
	// decoders by verb and media type.
	decoders map[string]map[string]runtime.Decoder
}

// objectKinds are the kinds by resource.
var objectKinds = map[string]string{
	"rolebindings":               "RoleBinding",
	"clusterrolebindings":        "ClusterRoleBinding",
	"roles":                      "Role",
	"clusterroles":               "ClusterRole",
	"customresourcedefinitions":  "CustomResourceDefinition",
	"apiservices":                "APIService",
	"certificatesigningrequests": "CertificateSigningRequest",
}

func newObjectReader() (*objectReader, error) {
	s := runtime.NewScheme()
	if err := errors.Join(rbacv1.AddToScheme(s), rbacv1beta1.AddToScheme(s), certificatesv1.AddToScheme(s)); err != nil {
		return nil, fmt.Errorf("kinds of objects: %w", err)
	}
	// Of these only the name counts, which stands in the same place in each kind.
	for _, version := range []string{"v1", "v1beta1"} {
		s.AddKnownTypeWithName(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: version, Kind: "CustomResourceDefinition"}, &metav1.PartialObjectMetadata{})
		s.AddKnownTypeWithName(schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: version, Kind: "APIService"}, &metav1.PartialObjectMetadata{})
	}
	addAdmissionKinds(s)
	json := jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, s, s, jsonserializer.SerializerOptions{})
	yaml := jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, s, s, jsonserializer.SerializerOptions{Yaml: true})
	whole := map[string]runtime.Decoder{
		runtime.ContentTypeJSON:     json,
		runtime.ContentTypeYAML:     yaml,
		runtime.ContentTypeProtobuf: protobuf.NewSerializer(s, s),
	}
	return &objectReader{scheme: s, decoders: map[string]map[string]runtime.Decoder{
		"create": whole,
		"update": whole,
		// Lists of a binding are replaced as a whole by all of these. A JSON patch
		// could put a subject together in steps, each of which says nothing.
		"patch": {
			string(types.MergePatchType):          json,
			string(types.StrategicMergePatchType): json,
			string(types.ApplyYAMLPatchType):      yaml,
		},
	}}, nil
}

// read finds in body what policy wants to know.
func (o *objectReader) read(contentType []string, info *apirequest.RequestInfo, body []byte) (*policy.Object, *wire.Refusal) {
	want := schema.GroupVersionKind{Group: info.APIGroup, Version: info.APIVersion, Kind: cmp.Or(objectKinds[info.Resource], admissionKinds[info.Resource].kind)}
	if !o.scheme.Recognizes(want) {
		return nil, unreadable(info, "version %s of it is not known here", want.Version)
	}
	if len(contentType) == 0 && info.Verb != "patch" {
		contentType = []string{runtime.ContentTypeJSON} // so does the API server
	}
	if len(contentType) != 1 {
		return nil, unreadable(info, "it has %d content types", len(contentType))
	}
	mediaType, _, err := mime.ParseMediaType(contentType[0])
	if err != nil {
		return nil, unreadable(info, "its content type is malformed")
	}
	decoder := o.decoders[info.Verb][mediaType]
	if decoder == nil {
		return nil, unreadable(info, "it comes as %s", audit.Clip(mediaType, 80))
	}
	if mediaType == runtime.ContentTypeYAML || mediaType == string(types.ApplyYAMLPatchType) {
		if len(body) > maxYAML {
			return nil, unreadable(info, "it is YAML of more than %d KiB", maxYAML>>10)
		}
		if manifest.MayAlias(body) {
			return nil, unreadable(info, "it is YAML with anchors and aliases")
		}
	}
	decoded, got, err := decoder.Decode(body, &want, nil)
	switch {
	case got != nil && *got != want:
		return nil, wire.Refuse(wire.ReasonMalformed, "", "the body is no %s of %s", want.Kind, want.GroupVersion())
	case err != nil:
		return nil, wire.Refuse(wire.ReasonMalformed, "", "the body cannot be read as a %s", want.Kind)
	}
	return objectOf(decoded), nil
}

// objectOf takes out what counts. It knows all types of the reader's scheme.
func objectOf(decoded runtime.Object) *policy.Object {
	object := &policy.Object{}
	if named, ok := decoded.(metav1.Object); ok {
		object.Name, object.GenerateName = named.GetName(), named.GetGenerateName()
	}
	bind := func(kind, namespace, name string) {
		object.Subjects = append(object.Subjects, policy.BoundSubject{Kind: kind, Namespace: namespace, Name: name})
	}
	switch b := decoded.(type) {
	case *certificatesv1.CertificateSigningRequest:
		object.Signer = b.Spec.SignerName
	case *rbacv1.ClusterRoleBinding:
		object.RoleRef = b.RoleRef.Name
		for _, s := range b.Subjects {
			bind(s.Kind, s.Namespace, s.Name)
		}
	case *rbacv1.RoleBinding:
		object.RoleRef = b.RoleRef.Name
		for _, s := range b.Subjects {
			bind(s.Kind, s.Namespace, s.Name)
		}
	case *rbacv1beta1.ClusterRoleBinding:
		object.RoleRef = b.RoleRef.Name
		for _, s := range b.Subjects {
			bind(s.Kind, s.Namespace, s.Name)
		}
	case *rbacv1beta1.RoleBinding:
		object.RoleRef = b.RoleRef.Name
		for _, s := range b.Subjects {
			bind(s.Kind, s.Namespace, s.Name)
		}
	default:
		admissionOf(object, decoded)
	}
	return object
}

// unreadable refuses what zt cannot look into.
func unreadable(info *apirequest.RequestInfo, why string, args ...any) *wire.Refusal {
	refusal := wire.Refuse(wire.ReasonBuiltinDenied, "send JSON, YAML or Kubernetes protobuf, or a merge or apply patch; role "+string(policy.AdminRole)+" may send anything",
		"what a request writes to %s must be readable, and %s", info.Resource, fmt.Sprintf(why, args...))
	refusal.Policy = policy.BuiltinPolicy
	return refusal
}

// object reads the body and puts the same bytes in its place. The step
// requestinfo has bounded it.
func (x *exchange) object() (*policy.Object, *wire.Refusal) {
	leave, ok := x.kube.held.Enter(string(x.who.User.Issuer) + " " + string(x.who.User.Subject))
	if !ok {
		return nil, wire.Refuse(wire.ReasonLimit, "wait for earlier requests to end", "too many objects are being written that must be looked into")
	}
	x.leave = leave
	control := http.NewResponseController(x.w.ResponseWriter)
	_ = control.SetReadDeadline(time.Now().Add(x.kube.requestTime))
	ended := make(chan struct{})
	stop := context.AfterFunc(x.ctx, func() {
		defer close(ended)
		_ = control.SetReadDeadline(time.Unix(1, 0)) // a cut does not wait for a body
	})
	body, err := io.ReadAll(x.r.Body)
	if !stop() {
		<-ended // the controller is not to be used once the handler returned
	}
	var tooLarge *http.MaxBytesError
	var cut *wire.Refusal
	switch {
	case errors.As(context.Cause(x.ctx), &cut):
		return nil, cut
	case errors.As(err, &tooLarge):
		return nil, stream.TooLarge(tooLarge.Limit)
	case err != nil:
		return nil, wire.Refuse(wire.ReasonMalformed, "", "the body did not come whole and in time")
	}
	_ = control.SetReadDeadline(time.Time{})
	x.r.Body, x.r.ContentLength, x.r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	select {
	case decoding <- struct{}{}:
		defer func() { <-decoding }()
	case <-x.ctx.Done():
		if errors.As(context.Cause(x.ctx), &cut) {
			return nil, cut
		}
		return nil, wire.Refuse(wire.ReasonMalformed, "", "the client has gone")
	}
	return x.kube.objects.read(x.r.Header["Content-Type"], x.info, body)
}
