package v1alpha1

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const labelRule = "at most 63 characters, only lower-case letters, digits and '-', first and last a letter or digit (RFC 1123 label)"

// label demands an RFC 1123 label, says the rule, and offers the label that the
// text would make.
func (p *problems) label(field, what, value string) bool {
	switch {
	case value == "":
		p.add(field, "%s is missing: %s", what, labelRule)
	case len(validation.IsDNS1123Label(value)) > 0:
		p.hint(field, asLabel(value), "%q is no %s: %s", clip(value), what, labelRule)
	default:
		return true
	}
	return false
}

// asLabel is the nearest label to value, quoted, or "".
func asLabel(value string) string {
	mapped := strings.Map(func(r rune) rune {
		switch r = unicode.ToLower(r); {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		default:
			return '-'
		}
	}, value)
	mapped = strings.Trim(mapped[:min(len(mapped), validation.DNS1123LabelMaxLength)], "-")
	if mapped == "" {
		return ""
	}
	return fmt.Sprintf("%q", mapped)
}

// subdomain demands the name form of most Kubernetes objects.
func (p *problems) subdomain(field, what, value string) {
	if value == "" {
		p.add(field, "%s is missing", what)
	} else if len(validation.IsDNS1123Subdomain(value)) > 0 {
		p.add(field, "%q is no %s: at most 253 characters, only lower-case letters, digits, '-' and '.', first and last a letter or digit (RFC 1123 subdomain)", clip(value), what)
	}
}

// meta checks what an object of ours may carry beside its name.
func (p *problems) meta(m *metav1.ObjectMeta) {
	for _, key := range slices.Sorted(maps.Keys(m.Labels)) {
		if errs := validation.IsQualifiedName(key); len(errs) > 0 {
			p.add("metadata.labels."+key, "the key of a label %s", errs[0])
		}
		if errs := validation.IsValidLabelValue(m.Labels[key]); len(errs) > 0 {
			p.add("metadata.labels."+key, "the value of a label %s", errs[0])
		}
	}
}

// text demands one line of printable text, so that nothing written here can
// steer a terminal or break a header. Length is in bytes.
func (p *problems) text(field, value string, longest int) bool {
	switch {
	case len(value) > longest:
		p.add(field, "is %d bytes long, at most %d are allowed", len(value), longest)
	case !utf8.ValidString(value):
		p.add(field, "is not UTF-8")
	case strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }):
		p.add(field, "holds a character that cannot be printed")
	default:
		return true
	}
	return false
}

const longestName = 256

// person demands a user or group name as the issuer says it: without the
// prefixes under which Kubernetes and zt know it.
func (p *problems) person(field, what, value string) {
	if value == "" {
		p.add(field, "the name of a %s is empty", what)
		return
	}
	if !p.text(field, value, longestName) {
		return
	}
	switch {
	case value != strings.TrimSpace(value):
		p.hint(field, fmt.Sprintf("%q", strings.TrimSpace(value)), "%q begins or ends with a space", value)
	case strings.HasPrefix(value, "system:"):
		p.add(field, "%q: names that begin with \"system:\" are Kubernetes' own and nobody at the issuer has one", value)
	case strings.HasPrefix(value, "zt:"):
		p.hint(field, fmt.Sprintf("%q", strings.TrimPrefix(value, "zt:")), "%q: write the %s as the issuer names it, without the prefix that Kubernetes sees", value, what)
	case strings.Contains(value, "*"):
		p.add(field, "%q: a %s is named exactly, without '*'", value, what)
	}
}

// deviceID: the first 20 characters of the lower-case base32 form of a thumbprint.
func isDeviceID(value string) bool {
	return len(value) == 20 && strings.Trim(value, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

func isLowerHex(value string) bool {
	return value != "" && strings.Trim(value, "0123456789abcdef") == ""
}

// clip keeps a message readable whatever was written.
func clip(value string) string {
	const longest = 80
	if len(value) <= longest {
		return value
	}
	return strings.ToValidUTF8(value[:longest], "") + "…"
}
