// Package metrics counts. It is the only room that knows Prometheus: the
// others call methods with a meaning, so that the names of series, their help
// and their labels stand in one file and a label can only be something of a
// closed or configured set. No label holds what a client may choose freely
// (user, path, host name): ten thousand of those must not make ten thousand
// series.
//
// There is one registry per gateway and no package-level state.
package metrics
