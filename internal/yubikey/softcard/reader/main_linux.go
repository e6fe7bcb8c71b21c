package reader

import (
	"fmt"
	"os"
)

// Main is a whole TestMain for a package whose tests share readers: it starts
// them, runs m (a *testing.M) and ends the process. The readers are the
// process's, since libpcsclite looks for pcscd once in a process's life.
func Main(m interface{ Run() int }, readers int, r **Reader) {
	code, err := run(m, readers, r)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m interface{ Run() int }, readers int, r **Reader) (int, error) {
	dir, err := os.MkdirTemp("", "pcscd") // a socket's path is bounded
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if *r, err = Start(dir, readers); err != nil {
		return 1, err
	}
	defer (*r).Close()
	return m.Run(), nil
}
