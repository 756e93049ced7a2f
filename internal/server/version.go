package server

import (
	"strconv"
	"strings"

	"github.com/gantry-containers/gantry/internal/errs"
)

// The versions of the Engine API this server speaks.
const (
	MaxAPIVersion = "1.51"
	MinAPIVersion = "1.24"

	maxAPI apiVersion = 1_51
	minAPI apiVersion = 1_24
)

// apiVersion is a version of the Engine API, written 1_51 for 1.51.
type apiVersion int

// parseVersion reads digits and dots. What is beyond any version is as good as
// the largest one.
func parseVersion(s string) apiVersion {
	majorText, rest, _ := strings.Cut(s, ".")
	minorText, _, _ := strings.Cut(rest, ".")
	return apiVersion(number(majorText)*100 + number(minorText))
}

// number saturates at 99, more than any part of a version.
func number(s string) int {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && s != "" && strings.Trim(s, "0123456789") == "" || n > 99 {
		return 99
	}
	return int(n)
}

// splitVersion takes the /v1.51 off the front of a path; "" when there is none.
func splitVersion(p string) (version, rest string) {
	after, ok := strings.CutPrefix(p, "/v")
	if !ok {
		return "", p
	}
	version, rest, ok = strings.Cut(after, "/")
	if !ok || version == "" || strings.Trim(version, "0123456789.") != "" {
		return "", p
	}
	return version, "/" + rest
}

// negotiate settles which version the client speaks: the newest unless it says.
func (r *request) negotiate(version string) error {
	if version == "" {
		return nil
	}
	r.api = parseVersion(version)
	if r.api < minAPI {
		return errs.InvalidArgument("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, MinAPIVersion)
	}
	if r.api > maxAPI {
		return errs.InvalidArgument("client version %s is too new. Maximum supported API version is %s", version, MaxAPIVersion)
	}
	return nil
}

// before tells whether the client speaks a version older than v.
func (r *request) before(v apiVersion) bool { return r.api < v }
