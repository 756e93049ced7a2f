package layer

import (
	"archive/tar"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// header describes an open file; fd may be opened with O_PATH.
func (p *packer) header(fd int, name string, st *unix.Stat_t) (*tar.Header, error) {
	owner := Owner{int(st.Uid), int(st.Gid)}
	if p.opts.MapOwner != nil {
		var err error
		if owner, err = p.opts.MapOwner(owner); err != nil {
			return nil, err
		}
	}
	hdr := &tar.Header{
		Name: name,
		Mode: int64(st.Mode & 0o7777),
		Uid:  owner.UID, Gid: owner.GID,
		ModTime: time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)),
		Format:  tar.FormatPAX, // the one with nanoseconds
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		hdr.Typeflag = tar.TypeReg
	case unix.S_IFDIR:
		hdr.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		hdr.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor = int64(unix.Major(uint64(st.Rdev)))
		hdr.Devminor = int64(unix.Minor(uint64(st.Rdev)))
	}
	var err error
	hdr.PAXRecords, err = xattrRecords(fd)
	return hdr, err
}

// xattrRecords reads the extended attributes of an open file as PAX records.
func xattrRecords(fd int) (map[string]string, error) {
	found, err := Xattrs(fd)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	records := make(map[string]string, len(found))
	for name, value := range found {
		if !strings.Contains(name, "=") {
			records[xattrPAX+name] = value
		}
	}
	return records, nil
}
