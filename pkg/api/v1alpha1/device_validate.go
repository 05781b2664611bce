package v1alpha1

import (
	"reflect"
	"time"
)

// Default implements Object.
func (d *Device) Default() {
	if d.Spec.Ownership == "" {
		d.Spec.Ownership = OwnershipPersonal
	}
}

// Validate implements Object.
func (d *Device) Validate(time.Time) []Problem {
	var p problems
	if !isDeviceID(d.Name) {
		p.add("metadata.name", "%q is no device id: 20 characters of a-z and 2-7, as `kubectl zt device status` prints it", clip(d.Name))
	}
	p.meta(&d.ObjectMeta)
	if d.Spec.Owner != "" {
		p.person("spec.owner", "user", d.Spec.Owner)
	}
	word(&p, "spec.ownership", d.Spec.Ownership, OwnershipCorporate, OwnershipPersonal)
	if !reflect.ValueOf(d.Status).IsZero() {
		p.add("status", "is what the gateway has seen; a manifest cannot say it")
	}
	return p
}
