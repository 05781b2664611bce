package v1alpha1

import (
	"reflect"
	"strings"
)

// Reloaded is what a running gateway makes of next: its own configuration with
// everything in next that can take effect at once. waiting are the fields
// (oidc.issuer) in which the two still differ: they take effect at the next
// start. Neither is changed. A field that is not named here waits.
func (c *GatewayConfiguration) Reloaded(next *GatewayConfiguration) (live *GatewayConfiguration, waiting []string) {
	live, next = c.DeepCopy(), next.DeepCopy()
	live.Login, live.Session, live.Limits, live.Shutdown = next.Login, next.Session, next.Limits, next.Shutdown
	live.OIDC.Scopes, live.OIDC.RequiredClaims = next.OIDC.Scopes, next.OIDC.RequiredClaims
	return live, differing(reflect.ValueOf(*live), reflect.ValueOf(*next), "")
}

// differing lists the leaves, by their names in YAML, in which two structs of
// one type are not equal.
func differing(a, b reflect.Value, prefix string) (fields []string) {
	for i := range a.NumField() {
		name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
		if name == "" {
			continue // apiVersion and kind
		}
		x, y := a.Field(i), b.Field(i)
		switch {
		case reflect.DeepEqual(x.Interface(), y.Interface()):
		case x.Kind() == reflect.Struct && x.Type().PkgPath() == a.Type().PkgPath():
			fields = append(fields, differing(x, y, prefix+name+".")...)
		default:
			fields = append(fields, prefix+name)
		}
	}
	return fields
}
