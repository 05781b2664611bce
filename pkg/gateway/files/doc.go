// Package files reads what somebody else writes, people with editors and the
// kubelet with its links, while it may be in the middle of that. What counts is
// only what two looks agree on: names, link targets, inodes, modes, sizes, times
// and contents. A file that is cut and written again, or a link that is swapped
// between two files that belong together, is then never taken by half (TestV201).
// What the gateway writes itself outlasts a crash by SyncDirectory.
package files
