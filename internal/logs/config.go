package logs

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	units "github.com/docker/go-units"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Drivers that keep (or do not keep) a container's output.
const (
	JSONFile = "json-file" // one JSON object per line, Docker's default
	Local    = "local"     // size-prefixed protobuf entries, Docker's compact layout
	None     = "none"      // nothing is kept
)

const (
	defaultMaxSize   = 20_000_000 // bytes; "20m" as go-units reads it
	defaultMaxFiles  = 5
	defaultRingBytes = 1_000_000 // of mode=non-blocking
)

// Config says how the output of one container is kept.
type Config struct {
	Driver string            // JSONFile, Local or None; "" is JSONFile
	Path   string            // current log file; rotated ones are PATH.1, PATH.2.gz …
	Opts   map[string]string // as given with --log-opt
	Attrs  map[string]string // labels, environment and tag kept with every entry
}

// settings is a Config with its options understood.
type settings struct {
	maxSize     int64 // bytes after which a file is rotated
	maxFiles    int   // including the current one
	compress    bool
	nonBlocking bool
	ringBytes   int64
}

// Validate reports whether opts can be used with driver, in the words of Docker.
// The errors are errdefs.ErrInvalidArgument.
func Validate(driver string, opts map[string]string) error {
	_, err := parse(driver, opts)
	return err
}

// parse reads the options of driver. Unlike Docker's json-file, which grows
// without end unless told otherwise, a log is bounded by default.
func parse(driver string, opts map[string]string) (settings, error) {
	s := settings{maxSize: defaultMaxSize, maxFiles: defaultMaxFiles, ringBytes: defaultRingBytes}
	if driver == "" {
		driver = JSONFile
	}
	if driver == None {
		return s, nil
	}
	if err := s.parseMode(opts); err != nil {
		return s, err
	}
	switch driver {
	case JSONFile:
	case Local:
		s.compress = true
	default:
		return s, errs.InvalidArgument("logger: no log driver named '%s' is registered", driver)
	}
	for key := range opts {
		if !knownOpt(key) {
			if driver == Local {
				return s, errs.InvalidArgument("unknown log opt '%s' for log driver local", key)
			}
			return s, errs.InvalidArgument("unknown log opt '%s' for json-file log driver", key)
		}
	}
	for _, key := range []string{"labels-regex", "env-regex"} {
		if v := opts[key]; v != "" {
			if _, err := regexp.Compile(v); err != nil {
				return s, errs.InvalidArgument("%w", err)
			}
		}
	}
	if driver == Local {
		return s, s.parseLocal(opts)
	}
	return s, s.parseJSONFile(opts)
}

func knownOpt(key string) bool {
	switch key {
	case "max-size", "max-file", "compress", "mode", "max-buffer-size",
		"labels", "labels-regex", "env", "env-regex", "tag",
		"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress":
		return true
	}
	return false
}

func (s *settings) parseMode(opts map[string]string) error {
	switch opts["mode"] {
	case "", "blocking":
	case "non-blocking":
		s.nonBlocking = true
	default:
		return errs.InvalidArgument("logger: logging mode not supported: %s", opts["mode"])
	}
	v, ok := opts["max-buffer-size"]
	if !ok {
		return nil
	}
	if !s.nonBlocking {
		return errs.InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	n, err := units.RAMInBytes(v)
	if err != nil {
		return errs.InvalidArgument("error parsing option max-buffer-size: %w", err)
	}
	s.ringBytes = n
	return nil
}

func (s *settings) parseJSONFile(opts map[string]string) (err error) {
	if v, ok := opts["max-size"]; ok {
		if s.maxSize, err = units.FromHumanSize(v); err != nil {
			return errs.InvalidArgument("%w", err)
		}
		if s.maxSize <= 0 {
			return errs.InvalidArgument("max-size must be a positive number")
		}
	}
	if v, ok := opts["max-file"]; ok {
		if s.maxFiles, err = strconv.Atoi(v); err != nil {
			return errs.InvalidArgument("%w", err)
		}
		if s.maxFiles < 1 {
			return errs.InvalidArgument("max-file cannot be less than 1")
		}
	}
	if v, ok := opts["compress"]; ok {
		if s.compress, err = strconv.ParseBool(v); err != nil {
			return errs.InvalidArgument("%w", err)
		}
		if s.compress && s.maxFiles == 1 {
			return errs.InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
		}
	}
	return nil
}

func (s *settings) parseLocal(opts map[string]string) (err error) {
	if v, ok := opts["max-size"]; ok {
		if s.maxSize, err = units.FromHumanSize(v); err != nil {
			return errs.InvalidArgument("invalid value for max-size: %s: %w", v, err)
		}
		if s.maxSize <= 0 {
			return errs.InvalidArgument("max-size must be a positive number")
		}
	}
	if v, ok := opts["max-file"]; ok {
		if s.maxFiles, err = strconv.Atoi(v); err != nil {
			return errs.InvalidArgument("invalid value for max-file: %s: %w", v, err)
		}
		if s.maxFiles < 0 {
			return errs.InvalidArgument("max-file must not be negative")
		}
	}
	if v, ok := opts["compress"]; ok {
		if s.compress, err = strconv.ParseBool(v); err != nil {
			return errs.InvalidArgument("invalid boolean value for compress: %w", err)
		}
	}
	if s.compress && s.maxFiles <= 1 {
		return errs.InvalidArgument("compression cannot be enabled when max file count is 1")
	}
	s.maxFiles = max(s.maxFiles, 1)
	return nil
}

// ExtraAttributes picks the labels and environment variables that opts names
// (labels, labels-regex, env, env-regex), as Docker does, for Config.Attrs.
// The tag option, being a template over the container, is its manager's.
func ExtraAttributes(opts, labels map[string]string, env []string) (map[string]string, error) {
	values := make(map[string]string, len(env))
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			values[k] = v
		}
	}
	attrs := map[string]string{}
	for _, pick := range []struct {
		option string
		from   map[string]string
	}{{"labels", labels}, {"env", values}} {
		for name := range strings.SplitSeq(opts[pick.option], ",") {
			if v, ok := pick.from[name]; ok {
				attrs[name] = v
			}
		}
		expr := opts[pick.option+"-regex"]
		if expr == "" {
			continue
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return nil, errs.InvalidArgument("%w", err)
		}
		for k, v := range pick.from {
			if re.MatchString(k) {
				attrs[k] = v
			}
		}
	}
	return attrs, nil
}

// rotatedName is the name of the nth file behind path (1 is the youngest).
func rotatedName(path string, n int, compressed bool) string {
	if compressed {
		return fmt.Sprintf("%s.%d.gz", path, n)
	}
	return fmt.Sprintf("%s.%d", path, n)
}
