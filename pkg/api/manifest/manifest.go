package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kube-zt/zt/pkg/api/spelling"
	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// MaxFile is the size in bytes above which a file is not read.
const MaxFile = 1 << 20

// Kinds of the objects that Decode knows.
const (
	KindTargetCluster = "TargetCluster"
	KindAccessRole    = "AccessRole"
	KindAccessPolicy  = "AccessPolicy"
	KindDevice        = "Device"
	KindRevocation    = "Revocation"
)

var kinds = []string{KindTargetCluster, KindAccessRole, KindAccessPolicy, KindDevice, KindRevocation}

func newObject(kind string) v1alpha1.Object {
	switch kind {
	case KindTargetCluster:
		return new(v1alpha1.TargetCluster)
	case KindAccessRole:
		return new(v1alpha1.AccessRole)
	case KindAccessPolicy:
		return new(v1alpha1.AccessPolicy)
	case KindDevice:
		return new(v1alpha1.Device)
	case KindRevocation:
		return new(v1alpha1.Revocation)
	}
	return nil
}

// Object is one decoded document and where it stands.
type Object struct {
	v1alpha1.Object
	Kind  string
	File  string
	lines map[string]int
	// faulty are the fields that could not be decoded.
	faulty []string
}

// Line of a field's path, or of the nearest field around it; "" is the object.
func (o *Object) Line(field string) int { return line(o.lines, field) }

// Problem makes an Error at one of o's fields.
func (o *Object) Problem(field, hint, format string, args ...any) Error {
	return Error{File: o.File, Line: o.Line(field), Field: field, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Check defaults and validates the object.
func (o *Object) Check(now time.Time) []Error {
	o.Default()
	return locate(o.File, o.lines, o.faulty, o.Validate(now))
}

// Decode reads the documents of one file. Objects are neither defaulted nor
// validated: Check does that. With any error the objects serve only to find
// more errors.
func Decode(file string, data []byte) ([]Object, []Error) {
	var objects []Object
	errs := documents(file, data, func(root *yaml.Node, d *decoder) {
		kind, ok := d.header(root, kinds)
		if !ok {
			return
		}
		object := newObject(kind)
		d.value(root, reflect.ValueOf(object).Elem(), "")
		objects = append(objects, Object{Object: object, Kind: kind, File: file, lines: d.lines, faulty: d.faulty()})
	})
	return objects, errs
}

// DecodeGateway reads, defaults and validates the one GatewayConfiguration of a
// file. It returns nil with any error.
func DecodeGateway(file string, data []byte, now time.Time) (*v1alpha1.GatewayConfiguration, []Error) {
	var found *v1alpha1.GatewayConfiguration
	var in *decoder
	errs := documents(file, data, func(root *yaml.Node, d *decoder) {
		if _, ok := d.header(root, []string{v1alpha1.KindGatewayConfiguration}); !ok {
			return
		}
		if found != nil {
			d.fail(root, "", "", "a second %s in one file", v1alpha1.KindGatewayConfiguration)
			return
		}
		found, in = new(v1alpha1.GatewayConfiguration), d
		d.value(root, reflect.ValueOf(found).Elem(), "")
	})
	if found == nil {
		if len(errs) == 0 {
			errs = []Error{{File: file, Message: "holds no " + v1alpha1.KindGatewayConfiguration}}
		}
		return nil, errs
	}
	found.Default()
	errs = append(errs, locate(file, in.lines, in.faulty(), found.Validate(now))...)
	if len(errs) > 0 {
		Sort(errs)
		return nil, errs
	}
	return found, nil
}

// documents calls each for every document that is a mapping.
func documents(file string, data []byte, each func(*yaml.Node, *decoder)) []Error {
	if len(data) > MaxFile {
		return []Error{{File: file, Message: fmt.Sprintf("is %d bytes long, at most %d are read", len(data), MaxFile)}}
	}
	var errs []Error
	for in := yaml.NewDecoder(bytes.NewReader(data)); len(errs) < enough; {
		var document yaml.Node
		err := in.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// What follows a syntax error is guesswork.
			errs = append(errs, syntax(file, err))
			break
		}
		if len(document.Content) == 0 || document.Content[0].ShortTag() == "!!null" {
			continue // nothing but comments between two separators
		}
		root := document.Content[0]
		d := &decoder{file: file, lines: map[string]int{"": root.Line}}
		if root.Kind != yaml.MappingNode {
			d.fail(root, "", "", "is no object: it has no apiVersion, kind and metadata")
		} else {
			each(root, d)
		}
		errs = append(errs, d.errs...)
	}
	Sort(errs)
	return errs
}

// syntax takes the line out of the text of a parser's error.
func syntax(file string, err error) Error {
	e := Error{File: file, Message: strings.TrimPrefix(err.Error(), "yaml: ")}
	if rest, ok := strings.CutPrefix(e.Message, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				e.Line, e.Message = n, text
			}
		}
	}
	e.Message = "not YAML: " + e.Message
	return e
}

// header reads apiVersion and kind, which say what all else is.
func (d *decoder) header(root *yaml.Node, known []string) (kind string, ok bool) {
	var version string
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch key, value := root.Content[i], root.Content[i+1]; {
		case value.Kind != yaml.ScalarNode:
		case key.Value == "apiVersion":
			version = value.Value
			d.lines["apiVersion"] = key.Line
		case key.Value == "kind":
			kind = value.Value
			d.lines["kind"] = key.Line
		}
	}
	at := func(field string) *yaml.Node { return &yaml.Node{Line: line(d.lines, field)} }
	switch {
	case version == "":
		d.fail(at(""), "apiVersion", "", "is missing: %s", v1alpha1.GroupVersion)
	case version != v1alpha1.GroupVersion:
		d.fail(at("apiVersion"), "apiVersion", "", "unknown version %q; this gateway reads %s", clip(version), v1alpha1.GroupVersion)
	case kind == "":
		d.fail(at(""), "kind", "", "is missing: one of %s", strings.Join(known, ", "))
	default:
		for _, k := range known {
			if k == kind {
				return kind, true
			}
		}
		d.unknownKind(at("kind"), kind, known)
	}
	return "", false
}

func (d *decoder) unknownKind(n *yaml.Node, kind string, known []string) {
	if near := spelling.Nearest(kind, known); near != "" {
		d.fail(n, "kind", strconv.Quote(near), "unknown kind %q", clip(kind))
		return
	}
	switch {
	case kind == v1alpha1.KindGatewayConfiguration:
		d.fail(n, "kind", "", "a %s is no object of the configuration directory; it is the file given to serve --config", kind)
	case len(known) == 1:
		d.fail(n, "kind", "", "%q does not belong here but %s", clip(kind), known[0])
	default:
		d.fail(n, "kind", "", "unknown kind %q; known are %s", clip(kind), strings.Join(known, ", "))
	}
}
