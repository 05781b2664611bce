//go:build !unix

package files

import "io/fs"

// inode is not known here; names, sizes, times and contents must do.
func inode(fs.FileInfo) uint64 { return 0 }
