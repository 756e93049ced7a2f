// Package internal holds the rooms of Gantry; ARCHITECTURE.md is their map. The
// test beside this file holds the arrows between them.
package internal
