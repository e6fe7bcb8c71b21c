package durability

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// disk is a block device with an ext4 file system, whose power can be cut. The
// device's sectors are in a memory file; sealing that makes every later write
// fail, all at one instant, so that it holds exactly what the device had
// received then: what was written but not synced is, for the most part, still
// in the page cache of the file system above, and lost.
type disk struct {
	w       *harness.World
	sectors *os.File
	loop    string // the device
	at      string // where it is mounted
}

// newDisk makes an empty file system of so many MiB and mounts it.
func newDisk(w *harness.World, at string, mib int64) *disk {
	w.Helper()
	d := &disk{w: w, sectors: memoryFile(w), at: at}
	if err := d.sectors.Truncate(mib << 20); err != nil {
		w.Fatal(err)
	}
	d.attach(func() { run(w, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", d.loop) })
	return d
}

func memoryFile(w *harness.World) *os.File {
	w.Helper()
	fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		w.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "disk")
	w.Cleanup(func() { _ = f.Close() })
	return f
}

// attach makes a loop device of the sectors and mounts what is on it.
func (d *disk) attach(before func()) {
	d.w.Helper()
	device, err := loopDevice(d.sectors)
	if err != nil {
		d.w.Fatal(err)
	}
	defer device.Close() // the mount keeps it; with the mount it goes
	d.loop = device.Name()
	before()
	if err := os.MkdirAll(d.at, 0o755); err != nil {
		d.w.Fatal(err)
	}
	if err := unix.Mount(d.loop, d.at, "ext4", 0, ""); err != nil {
		d.w.Fatalf("mounting %s: %v", d.loop, err)
	}
	at := d.at
	d.w.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) }) // it may be gone
}

// loopDevice binds a free loop device to the file.
func loopDevice(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no free loop device: %w", err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // else another test was quicker
			return nil, err
		}
	}
}

// sync writes everything to the device.
func (d *disk) sync() {
	d.w.Helper()
	f, err := os.Open(d.at)
	if err != nil {
		d.w.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		d.w.Fatal(err)
	}
}

// cut cuts the power: from now on nothing reaches the device.
func (d *disk) cut() {
	d.w.Helper()
	if _, err := unix.FcntlInt(d.sectors.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err != nil {
		d.w.Fatal(err)
	}
}

// repower mounts what the device had received when the power was cut, on a
// new device at the same place. Nobody may have files open any more.
func (d *disk) repower() {
	d.w.Helper()
	if err := unix.Unmount(d.at, unix.MNT_DETACH); err != nil {
		d.w.Fatal(err)
	}
	left := memoryFile(d.w)
	if _, err := d.sectors.Seek(0, io.SeekStart); err != nil {
		d.w.Fatal(err)
	}
	if _, err := io.Copy(left, d.sectors); err != nil {
		d.w.Fatal(err)
	}
	_ = d.sectors.Close()
	d.sectors = left
	d.attach(func() {})
}
