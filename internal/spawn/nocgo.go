//go:build !cgo

package spawn

const withC = false
