//go:build !unix

package secret

import "os"

// modesTell: modes are made up where access lists say who may read a file, as
// on Windows, where a user's own folders are closed to others.
const modesTell = false

func roots(os.FileInfo) bool { return false }
