//go:build !(linux && (amd64 || arm64))

package acl

import (
	"os"
	"time"
)

// stamp is what can be known of a file everywhere. Two stamps are equal if
// the file looks the same.
type stamp struct {
	size    int64
	mode    os.FileMode
	written time.Time
	failed  string // there is no file, or nobody may look
}

// statter looks at one path.
type statter struct{ path string }

func newStatter(path string) statter { return statter{path} }

func (s statter) stamp() stamp {
	info, err := os.Stat(s.path)
	if err != nil {
		return stamp{failed: err.Error()}
	}
	return stamp{size: info.Size(), mode: info.Mode(), written: info.ModTime().UTC()}
}
