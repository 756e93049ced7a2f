// Command mkimage builds the toolbox and packs it as an image archive that
// docker load, skopeo and the engine read. The same sources give the same bytes.
//
//	go run ./mkimage -o toolbox.tar.gz [-arch arm64]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

func main() {
	output := flag.String("o", "toolbox.tar.gz", "file to write")
	arch := flag.String("arch", env("TOOLBOX_ARCH", runtime.GOARCH), "architecture to build for, as GOARCH")
	flag.Parse()
	if err := run(*output, *arch); err != nil {
		fmt.Fprintf(os.Stderr, "mkimage: %v\n", err)
		os.Exit(1)
	}
}

func env(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func run(output, arch string) error {
	dir, err := os.MkdirTemp("", "toolbox-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "toolbox")
	if err := build(dir, program, arch); err != nil {
		return err
	}
	layer, diffID, err := packLayer(program)
	if err != nil {
		return err
	}
	// By rename, so that an interrupted build leaves no half archive.
	f, err := os.CreateTemp(filepath.Dir(output), ".toolbox-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := packImage(f, layer, diffID, arch); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), output)
}

// build makes one program of all commands. u-root's busybox maker turns them
// into packages of one; compiling is left to go build, which, unlike the maker,
// uses what is compiled already.
func build(dir, program, arch string) error {
	maker, source := filepath.Join(dir, "makebb"), filepath.Join(dir, "source")
	if err := command("", nil, "go", "build", "-o", maker, "github.com/u-root/gobusybox/src/cmd/makebb"); err != nil {
		return fmt.Errorf("cannot build makebb: %w", err)
	}
	args := []string{"-g", "-gen-dir", source, "-o", program}
	for _, name := range theirs() {
		args = append(args, "github.com/u-root/u-root/cmds/core/"+name)
	}
	for _, name := range ours() {
		args = append(args, "./cmds/"+name)
	}
	target := []string{"GOOS=linux", "GOARCH=" + arch, "CGO_ENABLED=0", "GOFLAGS="}
	if err := command("", target, maker, args...); err != nil {
		return fmt.Errorf("cannot gather the commands: %w", err)
	}
	// The maker writes a tree as from before modules.
	target = append(target, "GO111MODULE=off", "GOPATH="+source)
	err := command(filepath.Join(source, "src", "bb.u-root.com", "bb"), target,
		"go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", program, ".")
	if err != nil {
		return fmt.Errorf("cannot build the toolbox: %w", err)
	}
	return nil
}

// command runs a program and shows what it says only when it fails.
func command(dir string, environ []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), environ...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}
	return nil
}
