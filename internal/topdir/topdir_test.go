package topdir

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMark(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	Mark(dir)
	Mark(dir + "/missing") // is nobody's problem
	if st.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("the directory for temporary files is not on ext4")
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err != nil || flags&topdirFl == 0 {
		t.Errorf("flags %#x: %v", flags, err)
	}
}
