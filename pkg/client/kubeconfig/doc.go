// Package kubeconfig puts zt's contexts into kubeconfig files: its own
// (~/.kube/zt) or, asked to, any other.
//
// A kubeconfig is somebody else's file. It is therefore never decoded and
// written back: the YAML is parsed for positions only, zt's own entries are
// replaced line by line, and every other byte stays where it is, comments, key
// order and fields that nobody here knows included. Before the file is replaced
// the result is parsed again and held against the old one: if anything but zt's
// entries reads differently, nothing is written (V075).
//
// Writers take turns by client-go's own FILE.lock, and a file that has changed
// since it was read is read again, so nothing of a concurrent writer is lost.
// Entries of zt are recognised by what their user runs, never by their name
// alone: a context "prod" that belongs to the person is not touched, and where a
// user or cluster entry of the person's, or of another profile's, has the name that
// zt needs, nothing is written.
package kubeconfig
