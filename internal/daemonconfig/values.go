package daemonconfig

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/engine"
)

// fileSetter is a flag's value whose form in the configuration file is richer
// than the strings the flag takes.
type fileSetter interface {
	setFromFile(value any) error
}

// mapValue is NAME=VALUE, and an object in the file.
type mapValue struct{ m *map[string]string }

func (v mapValue) String() string { return "" }
func (v mapValue) Type() string   { return "map" }

func (v mapValue) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not NAME=VALUE", s)
	}
	if *v.m == nil {
		*v.m = map[string]string{}
	}
	(*v.m)[name] = value
	return nil
}

func (v mapValue) setFromFile(value any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%v is not an object", value)
	}
	for name, field := range object {
		s, err := scalar(field)
		if err != nil {
			return err
		}
		if err := v.Set(name + "=" + s); err != nil {
			return err
		}
	}
	return nil
}

// ulimitsValue is NAME=SOFT[:HARD], and {"NAME": {"Soft": …, "Hard": …}} in the file.
type ulimitsValue struct {
	m *map[string]*container.Ulimit
}

func (v ulimitsValue) String() string { return "" }
func (v ulimitsValue) Type() string   { return "ulimit" }

func (v ulimitsValue) Set(s string) error {
	u, err := units.ParseUlimit(s)
	if err != nil {
		return err
	}
	if *v.m == nil {
		*v.m = map[string]*container.Ulimit{}
	}
	(*v.m)[u.Name] = u
	return nil
}

func (v ulimitsValue) setFromFile(value any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%v is not an object", value)
	}
	for name, limit := range object {
		var soft, hard, inner string
		err := fields(limit, func(key string, value any) (err error) {
			switch strings.ToLower(key) {
			case "soft":
				soft, err = scalar(value)
			case "hard":
				hard, err = scalar(value)
			case "name":
				inner, err = scalar(value)
			default:
				err = fmt.Errorf("unknown field %q", key)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if inner != "" && inner != name {
			return fmt.Errorf("%s: named %s inside", name, inner)
		}
		if hard == "" {
			hard = soft
		}
		if err := v.Set(name + "=" + soft + ":" + hard); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// runtimesValue is NAME=PATH, and {"NAME": {"path": …, "runtimeArgs": […]}} in the file.
type runtimesValue struct{ m *map[string]engine.Runtime }

func (v runtimesValue) String() string { return "" }
func (v runtimesValue) Type() string   { return "runtime" }

func (v runtimesValue) Set(s string) error {
	name, path, ok := strings.Cut(s, "=")
	if !ok || name == "" || path == "" {
		return fmt.Errorf("%q is not NAME=PATH", s)
	}
	return v.add(name, engine.Runtime{Path: path})
}

func (v runtimesValue) add(name string, r engine.Runtime) error {
	if name == "gantry" {
		return fmt.Errorf("runtime name %q is reserved for the built-in one", name)
	}
	if _, ok := (*v.m)[name]; ok {
		return fmt.Errorf("runtime %q was already registered", name)
	}
	if *v.m == nil {
		*v.m = map[string]engine.Runtime{}
	}
	(*v.m)[name] = r
	return nil
}

func (v runtimesValue) setFromFile(value any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%v is not an object", value)
	}
	for name, spec := range object {
		var r engine.Runtime
		err := fields(spec, func(key string, value any) (err error) {
			switch key {
			case "path":
				r.Path, err = scalar(value)
			case "runtimeArgs":
				r.Args, err = list(value)
			default:
				err = fmt.Errorf("unknown field %q", key)
			}
			return err
		})
		if err == nil && r.Path == "" {
			err = fmt.Errorf("no path given")
		}
		if err == nil {
			err = v.add(name, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// sizeValue is bytes with an optional unit: 64m.
type sizeValue struct{ bytes *int64 }

func (v sizeValue) String() string { return "" }
func (v sizeValue) Type() string   { return "bytes" }

func (v sizeValue) Set(s string) (err error) {
	*v.bytes, err = units.RAMInBytes(s)
	return err
}

func fields(value any, each func(key string, value any) error) error {
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%v is not an object", value)
	}
	for key, field := range object {
		if err := each(key, field); err != nil {
			return err
		}
	}
	return nil
}
