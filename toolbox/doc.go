// Package toolbox is the small userland that the engine carries in itself as
// the image toolbox: enough to look around in a container, without a network or
// a registry.
//
// It is one static program that is all commands at once, and finds out by its
// name which it is to be. The commands are those of u-root and, in cmds, what
// u-root lacks or spells otherwise than people expect: the shell (mvdan.cc/sh)
// above all. mkimage builds the program and packs the image. All of it is a
// module of its own so that none of its dependencies are the engine's.
package toolbox
