// Package manifest reads what people write: YAML files of API group
// kube-zt.io, decoded so strictly that a slip is an error and never a default.
//
// Refused, each with file, line and field: unknown and misspelt fields (with the
// nearest known one), keys that stand twice, values of the wrong type, fields
// without a value and empty lists (where an absent list means "any", an empty
// one must not), anchors, aliases and tags, unknown kinds and versions, files
// over 1 MiB. A file either decodes whole or not at all.
package manifest
