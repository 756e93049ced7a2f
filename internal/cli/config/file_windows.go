package config

import (
	"io/fs"
	"os"
)

func lockDir(dir string) (unlock func(), err error) {
	return func() {}, os.MkdirAll(dir, 0o700)
}

func sameOwner(*os.File, fs.FileInfo) error { return nil }
