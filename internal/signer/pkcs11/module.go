//go:build cgo

package pkcs11

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// moduleVariable names the module of URIs that name none.
const moduleVariable = "CHANCERY_PKCS11_MODULE"

// process is what this process has loaded. It is a variable of the package,
// not a value that callers carry, because PKCS#11 has it so: C_Initialize and
// C_Login hold for the whole process (base specification 2.40, sections 5.4
// and 5.6), and a PIN refused must be remembered whoever offers it again.
var process registry

type registry struct {
	mu      sync.Mutex         // held while a module is loaded, too: C_Initialize mustn't run twice at once
	modules map[string]*module // by path with symbolic links resolved
}

// module is a loaded and initialized PKCS#11 library. It is never unloaded.
type module struct {
	path string
	ctx  *pkcs11.Ctx

	// calls is held for reading during calls into the module, and for writing
	// while it is initialized anew. That ends all sessions, so it is done only
	// when open is 0. Nobody waits for the write lock.
	calls sync.RWMutex
	open  atomic.Int64 // who holds sessions beyond a call; raised under calls
	ours  bool         // initialized by this package, which so may finalize it

	// login is held during a login, with asking for the PIN, so that two keys
	// of one token can't both offer the same wrong one.
	login sync.Mutex
	salt  [32]byte
	pins  map[[32]byte]pinState // by salted hash of token and PIN; guarded by login
}

// load returns the module a URI names, loading it the first time. It blocks on
// the disk and on the module's initialization.
func (r *registry) load(u URI) (*module, error) {
	path, err := modulePath(u)
	if err != nil {
		return nil, err
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("PKCS#11 module: %w; install it or correct module-path", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, ok := r.modules[path]; ok {
		return m, nil
	}
	m := &module{path: path, ctx: pkcs11.New(path), pins: map[[32]byte]pinState{}}
	if m.ctx == nil {
		return nil, fmt.Errorf("PKCS#11 module %s can't be loaded; check that it is one and that nothing it needs is missing: ldd %s", path, path)
	}
	rand.Read(m.salt[:])
	if err := m.initialize(); err != nil {
		return nil, err
	}
	if r.modules == nil {
		r.modules = map[string]*module{}
	}
	r.modules[path] = m
	return m, nil
}

// initialize calls C_Initialize with CKF_OS_LOCKING_OK, as many goroutines,
// and so threads, will call.
func (m *module) initialize() error {
	err := m.ctx.Initialize(pkcs11.InitializeWithFlags(pkcs11.CKF_OS_LOCKING_OK))
	switch {
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)):
		m.ours = false
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_CANT_LOCK)):
		return fmt.Errorf("PKCS#11 module %s can't be used by several threads, as a server must: %w", m.path, err)
	case err != nil:
		return fmt.Errorf("PKCS#11 module %s: initialize: %w", m.path, err)
	default:
		m.ours = true
	}
	return nil
}

// renew initializes the module anew, so that it looks for tokens again: some
// modules see tokens that were plugged in later, or a restarted HSM, in no
// other way. It does nothing and returns false while any key of this process
// has sessions there or any call is under way.
func (m *module) renew() bool {
	if !m.calls.TryLock() {
		return false
	}
	defer m.calls.Unlock()
	if m.open.Load() != 0 || !m.ours {
		return false
	}
	if err := m.ctx.Finalize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
		return false
	}
	// A failure shows in the next call: CKR_CRYPTOKI_NOT_INITIALIZED.
	err := m.initialize()
	m.ours = true
	return err == nil
}

// modulePath finds the library: by module-path, module-name or the environment.
func modulePath(u URI) (string, error) {
	if u.ModuleName != "" {
		return searchModule(u.ModuleName)
	}
	path := cmp.Or(u.ModulePath, os.Getenv(moduleVariable))
	switch {
	case path == "":
		return "", fmt.Errorf("%s names no PKCS#11 module: add ?module-path=/path/to/module.so, or set %s", u, moduleVariable)
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("%s must be an absolute path", moduleVariable)
	}
	return path, nil
}

// searchModule looks for lib<name>.so and <name>.so where distributions and
// vendors put modules. The loader's own search isn't used: it obeys variables
// and caches that a reader of the configuration doesn't see.
func searchModule(name string) (string, error) {
	folders := []string{
		"/usr/lib/*-linux-gnu*/pkcs11", "/usr/lib/*-linux-gnu*", "/usr/lib64/pkcs11", "/usr/lib64",
		"/usr/lib/pkcs11", "/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/lib",
		"/usr/local/lib/pkcs11", "/usr/local/lib/softhsm", "/usr/local/lib",
	}
	if strings.ContainsAny(name, `*?[\`) {
		return "", fmt.Errorf("module-name %q: not the name of a library", name)
	}
	for _, folder := range folders {
		for _, file := range []string{"lib" + name + ".so", name + ".so"} {
			if found, err := filepath.Glob(filepath.Join(folder, file)); err == nil && len(found) > 0 {
				return found[0], nil
			}
		}
	}
	return "", fmt.Errorf("module-name %q: no lib%s.so or %s.so below /usr/lib, /usr/lib64 or /usr/local/lib; install it, or use module-path", name, name, name)
}
