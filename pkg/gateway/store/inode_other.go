//go:build !unix

package store

import "io/fs"

// inode is not known here; names, sizes, times and contents must do.
func inode(fs.FileInfo) uint64 { return 0 }
