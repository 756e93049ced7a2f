package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Constants of linux/fs.h and linux/quota.h that x/sys does not have.
const (
	fsIocFSGetXattr   = 0x801c581f
	fsIocFSSetXattr   = 0x401c5820
	fsXflagProjInhert = 0x200
	projectQuota      = 2
	qGetQuota         = 0x800007
	qSetQuota         = 0x800008
	qifBlockLimits    = 1
	quotaBlock        = 1024 // bytes per unit of a limit
)

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

// dqblk is struct if_dqblk of linux/quota.h.
type dqblk struct {
	blockHard, blockSoft, curSpace  uint64
	inodeHard, inodeSoft, curInodes uint64
	blockTime, inodeTime            uint64
	valid                           uint32
	_                               uint32
}

// quota limits directory trees by project quotas, which ext4 has with the
// features project and quota and xfs with the mount option prjquota.
type quota struct{ dir string }

// openQuota fails when the file system of dir does not enforce project quotas.
func openQuota(dir string) (*quota, error) {
	q := &quota{dir}
	if _, err := q.get(0); err != nil {
		return nil, fmt.Errorf("the file system of %s has no project quotas (ext4 or xfs mounted with prjquota has): %w", dir, err)
	}
	return q, nil
}

// limit makes everything created below dir from now on count towards a project
// of its own that may take size bytes.
func (q *quota) limit(dir string, size int64) error {
	id, err := q.unusedProject()
	if err != nil {
		return err
	}
	if err := q.set(id, uint64(size)); err != nil {
		return fmt.Errorf("cannot set a project quota: %w", err)
	}
	if err := setProject(dir, id); err != nil {
		q.set(id, 0)
		return fmt.Errorf("cannot set the project of %s: %w", dir, err)
	}
	return nil
}

// release takes back the limit on dir, which is about to be removed, if it has
// one or exists at all. There is nothing to do without quotas (q is nil).
func (q *quota) release(dir string) error {
	if q == nil {
		return nil
	}
	id, err := projectOf(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && id == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return q.set(id, 0)
}

// unusedProject finds a project number nothing is accounted to. Others may use
// projects on the same file system, so it is drawn and looked up.
func (q *quota) unusedProject() (uint32, error) {
	for range 1000 {
		id := 1<<20 + rand.Uint32N(1<<30)
		b, err := q.get(id)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			return id, nil // xfs: never used
		}
		if err != nil {
			return 0, err
		}
		if b.curInodes == 0 && b.blockHard == 0 && b.blockSoft == 0 && b.inodeHard == 0 {
			return id, nil
		}
	}
	return 0, errors.New("cannot find an unused project number")
}

func (q *quota) get(id uint32) (dqblk, error) {
	var b dqblk
	return b, q.call(qGetQuota, id, &b)
}

// set limits a project to size bytes; 0 lifts the limit.
func (q *quota) set(id uint32, size uint64) error {
	return q.call(qSetQuota, id, &dqblk{blockHard: (size + quotaBlock - 1) / quotaBlock, valid: qifBlockLimits})
}

func (q *quota) call(cmd uintptr, id uint32, b *dqblk) error {
	d, err := os.Open(q.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, d.Fd(), cmd<<8|projectQuota, uintptr(id), uintptr(unsafe.Pointer(b)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func projectOf(dir string) (uint32, error) {
	x, err := xattrIoctl(dir, fsIocFSGetXattr, fsxattr{})
	return x.projid, err
}

func setProject(dir string, id uint32) error {
	x, err := xattrIoctl(dir, fsIocFSGetXattr, fsxattr{})
	if err != nil {
		return err
	}
	x.projid = id
	x.xflags |= fsXflagProjInhert
	_, err = xattrIoctl(dir, fsIocFSSetXattr, x)
	return err
}

func xattrIoctl(dir string, request uintptr, x fsxattr) (fsxattr, error) {
	d, err := os.Open(dir)
	if err != nil {
		return x, err
	}
	defer d.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), request, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return x, errno
	}
	return x, nil
}
