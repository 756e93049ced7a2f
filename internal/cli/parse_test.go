package cli

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/distribution/reference"
)

// What is typed reaches the container unchanged, except for the sequence.
func TestDetachReader(t *testing.T) {
	for _, tt := range []struct {
		keys, in, want string
		detached       bool
	}{
		{"", "hello", "hello", false},
		{"", "a\x10\x11b", "a", true},
		{"", "a\x10b\x10\x10\x11", "a\x10b\x10", true},
		{"", "a\x10", "a\x10", false},
		{"ctrl-x", "ab\x18c", "ab", true},
		{"a,b,a,c", "abababac", "abab", true},
		{"a,a,b", "aaaab", "aa", true},
		{"ctrl-@,ctrl-]", "\x00\x1d", "", true},
	} {
		keys, err := parseDetachKeys(tt.keys)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in)), iotest.DataErrReader(strings.NewReader(tt.in))} {
			got, err := io.ReadAll(&detachReader{r: in, keys: keys})
			if string(got) != tt.want || errors.Is(err, errDetached) != tt.detached {
				t.Errorf("%q with %q: %q, %v", tt.in, tt.keys, got, err)
			}
		}
	}
	for _, bad := range []string{"ctrl-", "ctrl-!", "ab", "a,,b", "ctrl-ab"} {
		if keys, err := parseDetachKeys(bad); err == nil {
			t.Errorf("%q is accepted as %q", bad, keys)
		}
	}
}

func FuzzDetachReader(f *testing.F) {
	f.Add("ctrl-p,ctrl-q", []byte("abc\x10\x10\x11def"))
	f.Add("a,a,b", []byte("aaab"))
	f.Fuzz(func(t *testing.T, spec string, in []byte) {
		keys, err := parseDetachKeys(spec)
		if err != nil {
			return
		}
		want := in
		i := bytes.Index(in, keys)
		if i >= 0 {
			want = in[:i]
		}
		got, err := io.ReadAll(&detachReader{r: iotest.HalfReader(bytes.NewReader(in)), keys: keys})
		if !bytes.Equal(got, want) || errors.Is(err, errDetached) != (i >= 0) {
			t.Errorf("keys %q in %q: %q, %v", keys, in, got, err)
		}
	})
}

// FuzzParseRef holds our reference parser against the library the registries'
// tools use.
func FuzzParseRef(f *testing.F) {
	for _, s := range []string{
		"busybox", "busybox:1.36", "library/busybox", "docker.io/busybox", "index.docker.io/a/b", "localhost/x", "localhost:5000/x/y:z", "a.b/c", "A/b", "a/B", "Foo/bar", "x__y", "x___y", "x--y", "x.-y", "-x",
		"busybox@sha256:" + strings.Repeat("a", 64), "x:t@sha256:" + strings.Repeat("0", 64), "x@sha256:aa", "[::1]:5000/x", "[::1]/x", "x:", ":x", "", "a//b", "a/", "/a", "x:" + strings.Repeat("t", 129), strings.Repeat("a", 64), strings.Repeat("a/", 200) + "b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseRef(s)
		if got.isID {
			return
		}
		want, wantErr := reference.ParseNormalizedNamed(s)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, the library says %v", s, err, wantErr)
		}
		if err != nil {
			return
		}
		if got.name()+got.suffix() != want.String() || got.familiarName()+got.suffix() != reference.FamiliarString(want) {
			t.Errorf("%q: %q and %q, want %q and %q", s, got.name()+got.suffix(), got.familiarName()+got.suffix(), want, reference.FamiliarString(want))
		}
	})
}

func TestTimestamp(t *testing.T) {
	old := time.Local
	time.Local = time.UTC
	defer func() { time.Local = old }()
	now := time.Unix(1700000000, 5)
	for in, want := range map[string]string{
		"": "", "42m": "1699997480", "1h30m": "1699994600", "0": "0", "1600000000": "1600000000", "1600000000.25": "1600000000.25",
		"2013-01-02T13:23:37Z": "1357133017.000000000", "2013-01-02T13:23:37.5+01:00": "1357129417.500000000",
		"2013-01-02T13:23:37": "1357133017.000000000", "2013-01-02T13:23": "1357132980.000000000", "2013-01-02": "1357084800.000000000", "2013-01-02T13": "1357131600.000000000",
	} {
		if got, err := timestamp(in, now); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"yesterday", "1e5", "0x10", "2013-13-02", "NaN"} {
		if got, err := timestamp(bad, now); err == nil {
			t.Errorf("%q is accepted as %q", bad, got)
		}
	}
}

func TestNearest(t *testing.T) {
	names := commandNames()
	for in, want := range map[string]string{"rnu": "run", "imgaes": "images", "lgos": "logs", "conatiner": "container", "inspekt": "inspect", "xyzzy": "", "contain": "container"} {
		if got := nearest(in, names); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestCopyArgument(t *testing.T) {
	for in, want := range map[string][2]string{
		"c:/x": {"c", "/x"}, "/a:b": {"", "/a:b"}, "./a:b": {"", "./a:b"}, "c:": {"c", ""}, "x": {"", "x"}, "c:a:b": {"c", "a:b"}, "-": {"", "-"},
	} {
		if name, p := splitCopyArg(in); name != want[0] || p != want[1] {
			t.Errorf("%q: %q, %q", in, name, p)
		}
	}
}
