//go:build !linux

package engine

import "os"

// fdatasync brings a file to the disk. Servers run on Linux; this is for the
// tests of those who develop elsewhere.
func fdatasync(f *os.File) error { return f.Sync() }
