package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/wire"
)

// statusLimit is how much of a 403 is looked at, in bytes. A Status repeats the
// request's path and little else.
const statusLimit = 64 << 10

// stale finds a 403 that is about the gateway's own account: then it is not the
// person who lacks a right, and what he would read names an account that he has
// never heard of. What cannot be read as such passes as it is.
func (u *Upstream) stale(response *http.Response) error {
	head, err := io.ReadAll(io.LimitReader(response.Body, statusLimit))
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), response.Body), response.Body}
	if err != nil {
		return nil
	}
	status := decodeStatus(response.Header, head)
	if status == nil || !aboutOurselves(status, u.account(), impersonate.UserOf(response.Request.Context())) {
		return nil
	}
	return failure(KindRBAC, errors.New(clip(status.Message, 1024)), wire.ReasonRBACStale,
		"tell your administrator to apply what `zt-gateway rbac` prints",
		"zt's policy allows this, but the gateway's account in the cluster may not do it in your name")
}

// decodeStatus reads a Status in the forms in which the API server writes one,
// which is the client's to choose; nil where there is none.
func decodeStatus(header http.Header, body []byte) *metav1.Status {
	if header.Get("Content-Encoding") != "" {
		return nil // an API server compresses only what is long
	}
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return nil
	}
	status := &metav1.Status{}
	switch mediaType {
	case runtime.ContentTypeJSON:
		err = json.Unmarshal(body, status)
	case runtime.ContentTypeYAML:
		if manifest.MayAlias(body) { // no API server writes any, but an extension's may be anybody's
			return nil
		}
		err = yaml.Unmarshal(body, status)
	case runtime.ContentTypeProtobuf:
		raw, ok := bytes.CutPrefix(body, []byte("k8s\x00"))
		var unknown runtime.Unknown
		if err = unknown.Unmarshal(raw); !ok || err != nil {
			return nil
		}
		err = status.Unmarshal(unknown.Raw)
		status.TypeMeta = metav1.TypeMeta{APIVersion: unknown.APIVersion, Kind: unknown.Kind}
	default:
		return nil
	}
	if err != nil || status.Kind != "Status" || status.APIVersion != "v1" || status.Reason != metav1.StatusReasonForbidden {
		return nil
	}
	return status
}

// aboutOurselves reports whether status says that account, which is the gateway's
// own or "" where its name is not known, cannot impersonate: the text of the legacy
// check or of KEP-5284's. The message begins with what stands in the details, so
// that a name, which anybody may choose, is never taken for the rest.
//
// Where the account is not known it is whoever is not the person: the API server
// knows of nobody else.
func aboutOurselves(status *metav1.Status, account, person string) bool {
	rest, ok := strings.CutPrefix(status.Message, forbiddenPrefix(status.Details)+"User ")
	if !ok {
		return false
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return false
	}
	user, err := strconv.Unquote(quoted)
	if err != nil || user == person || account != "" && user != account {
		return false
	}
	verb, ok := strings.CutPrefix(rest[len(quoted):], " cannot ")
	verb, _, _ = strings.Cut(verb, " ")
	return ok && (verb == "impersonate" || strings.HasPrefix(verb, "impersonate:") || strings.HasPrefix(verb, "impersonate-on:"))
}

// forbiddenPrefix is how k8s.io/apimachinery's NewForbidden begins a message. A
// kind with more than a name in it is somebody's who wants to be mistaken for the
// API server, such as a webhook: it leads to a text that no message has.
func forbiddenPrefix(details *metav1.StatusDetails) string {
	if details == nil || details.Kind == "" && details.Group == "" {
		return "forbidden: "
	}
	resource := details.Kind
	if details.Group != "" {
		resource += "." + details.Group
	}
	switch {
	case strings.ContainsAny(resource, " \":"):
		return "\x00"
	case details.Name == "":
		return resource + " is forbidden: "
	}
	return fmt.Sprintf("%s %q is forbidden: ", resource, details.Name)
}
