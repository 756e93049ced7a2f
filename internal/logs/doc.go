// Package logs writes what containers say into files and reads it back.
//
// It owns the two file layouts that survive a container (Docker's json-file and
// local), their rotation and compression, and the reader that joins the rotated
// files into one exact sequence while another process writes them. It knows
// nothing of containers, of processes or of who listens: a writer is given
// bytes, a reader a path.
//
// Writer and reader share no lock and need none: they usually live in different
// processes, and either may be killed at any moment. What they share is a rule
// on the file system:
//
//   - a file is only appended to while it has the name PATH;
//   - rotation renames from the oldest to the newest and makes PATH last;
//   - a compressed file appears by rename, after which its original goes.
//
// A reader therefore takes the list of files twice, until two looks agree, and
// holds what it has opened: a file that is renamed or removed meanwhile stays
// readable. A half line (the writer was killed, the disk was full) is skipped.
package logs
