package store

import (
	"cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// observe adds what was seen to what was known. The key, the first owner, the
// first sight and a revocation stay whatever is seen later.
// With transfer the owner does not.
func observe(known, seen v1alpha1.DeviceStatus, transfer bool) v1alpha1.DeviceStatus {
	merged := known
	merged.Thumbprint = cmp.Or(known.Thumbprint, seen.Thumbprint)
	if known.OwnerSubject == "" || transfer {
		merged.Owner, merged.OwnerIssuer, merged.OwnerSubject = seen.Owner, seen.OwnerIssuer, seen.OwnerSubject
	} else if sameOwner(known, seen) {
		merged.Owner = cmp.Or(seen.Owner, known.Owner) // people are renamed
	}
	merged.Tier = cmp.Or(seen.Tier, known.Tier)
	merged.Platform = cmp.Or(seen.Platform, known.Platform)
	merged.Hostname = cmp.Or(seen.Hostname, known.Hostname)
	if known.FirstSeen.IsZero() {
		merged.FirstSeen = seen.FirstSeen
	}
	switch known.Phase {
	case "", v1alpha1.DevicePending:
		merged.Phase = cmp.Or(seen.Phase, known.Phase, v1alpha1.DevicePending)
	case v1alpha1.DeviceApproved:
		if seen.Phase == v1alpha1.DeviceRevoked {
			merged.Phase = v1alpha1.DeviceRevoked
		}
	}
	return merged
}

func sameOwner(a, b v1alpha1.DeviceStatus) bool {
	return a.OwnerIssuer == b.OwnerIssuer && a.OwnerSubject == b.OwnerSubject
}

// merge joins what was seen with what a manifest wishes; either may be missing.
// The stricter wins: a manifest approves only while it says so, one that does
// not takes back an approval by command line, and a revocation always holds.
func merge(id wire.DeviceID, wish *v1alpha1.Device, seen *v1alpha1.DeviceStatus, revoked bool) v1alpha1.Device {
	d := v1alpha1.Device{}
	d.APIVersion, d.Kind, d.Name = v1alpha1.GroupVersion, "Device", string(id)
	if seen != nil {
		d.Status = *seen
		d.Spec.Owner = seen.Owner
		d.Spec.Approved = seen.Phase == v1alpha1.DeviceApproved
		revoked = revoked || seen.Phase == v1alpha1.DeviceRevoked
	}
	d.Spec.Ownership = v1alpha1.OwnershipPersonal
	if wish != nil {
		d.Labels, d.Annotations = wish.Labels, wish.Annotations
		d.Spec.Ownership = wish.Spec.Ownership
		d.Spec.Approved = wish.Spec.Approved
		revoked = revoked || wish.Spec.Revoked
		if wish.Spec.Owner != "" && wish.Spec.Owner != d.Spec.Owner {
			// The administrator gives the device to somebody else: whoever used
			// it first is no longer its owner.
			d.Spec.Owner = wish.Spec.Owner
			d.Status.Owner, d.Status.OwnerIssuer, d.Status.OwnerSubject = "", "", ""
		}
	}
	d.Spec.Revoked = revoked
	switch {
	case revoked:
		d.Spec.Approved = false
		d.Status.Phase = v1alpha1.DeviceRevoked
	case d.Spec.Approved:
		d.Status.Phase = v1alpha1.DeviceApproved
	default:
		d.Status.Phase = v1alpha1.DevicePending
	}
	return d
}
