package image

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// ApplyChanges carries out Dockerfile instructions on a configuration: those
// that --change of import and commit may give. The configuration is changed
// even when a later instruction is bad; its slices and maps are replaced, never
// written to.
func ApplyChanges(config *dockerspec.DockerOCIImageConfig, changes []string) error {
	hasCmd := false
	lines := joinLines(strings.Join(changes, "\n"))
	if len(lines) == 0 && len(changes) > 0 {
		return errs.InvalidArgument("the changes have no instructions")
	}
	for _, line := range lines {
		if err := applyChange(config, line); err != nil {
			return err
		}
		switch name := strings.Fields(line)[0]; {
		case strings.EqualFold(name, "CMD"):
			hasCmd = len(config.Cmd) > 0
		case strings.EqualFold(name, "ENTRYPOINT") && !hasCmd:
			config.Cmd = nil // the command was for another entry point
		}
	}
	return nil
}

// joinLines splits changes into instructions: a backslash at the end of a line
// goes on in the next, and a line that begins with # is a comment.
func joinLines(s string) (lines []string) {
	var line strings.Builder
	for part := range strings.Lines(s) {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, "#") || part == "" {
			continue
		}
		if rest, ok := strings.CutSuffix(part, `\`); ok {
			line.WriteString(rest)
			continue
		}
		line.WriteString(part)
		lines = append(lines, line.String())
		line.Reset()
	}
	if line.Len() > 0 {
		lines = append(lines, line.String())
	}
	return lines
}

func applyChange(c *dockerspec.DockerOCIImageConfig, line string) (err error) {
	name, args := line, ""
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		name, args = line[:i], strings.TrimSpace(line[i:])
	}
	name = strings.ToUpper(name)
	if args == "" && isChange(name) {
		return errs.InvalidArgument("%s requires at least one argument", name)
	}
	switch name {
	case "CMD":
		c.Cmd, err = commandOf(c, args)
	case "ENTRYPOINT":
		c.Entrypoint, err = commandOf(c, args)
	case "ENV":
		return eachPair(c, name, args, func(key, value string) { c.Env = setEnv(c.Env, key, value) })
	case "LABEL":
		c.Labels = maps.Clone(c.Labels)
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		return eachPair(c, name, args, func(key, value string) { c.Labels[key] = value })
	case "WORKDIR":
		dir := unquote(args, c.Env)
		if !path.IsAbs(dir) {
			dir = path.Join("/", c.WorkingDir, dir)
		}
		c.WorkingDir = path.Clean(dir)
	case "USER":
		c.User = unquote(args, c.Env)
	case "STOPSIGNAL":
		c.StopSignal = unquote(args, c.Env)
	case "EXPOSE":
		return applyExpose(c, args)
	case "VOLUME":
		return applyVolume(c, args)
	case "ONBUILD":
		return applyOnBuild(c, args)
	case "HEALTHCHECK":
		return applyHealthcheck(c, args)
	case "SHELL":
		list, _, err := jsonList(args)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return errs.InvalidArgument("SHELL requires its arguments as a JSON list")
		}
		c.Shell = list
	default:
		return errs.InvalidArgument("%s is not a valid change command", strings.ToLower(name))
	}
	return err
}

func isChange(name string) bool {
	return slices.Contains([]string{"CMD", "ENTRYPOINT", "ENV", "LABEL", "WORKDIR", "USER", "STOPSIGNAL",
		"EXPOSE", "VOLUME", "ONBUILD", "HEALTHCHECK", "SHELL"}, name)
}

// jsonList reads the JSON form of an instruction; ok tells whether it is one.
func jsonList(args string) (list []string, ok bool, err error) {
	var values []any
	if !strings.HasPrefix(args, "[") || json.Unmarshal([]byte(args), &values) != nil {
		return nil, false, nil
	}
	list = []string{}
	for _, v := range values {
		s, isString := v.(string)
		if !isString {
			return nil, true, errs.InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
		}
		list = append(list, s)
	}
	return list, true, nil
}

// commandOf reads a command: a JSON list as it is, or else a line for the shell.
func commandOf(c *dockerspec.DockerOCIImageConfig, args string) ([]string, error) {
	if list, ok, err := jsonList(args); ok {
		return list, err
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), args), nil
}

// eachPair calls set for every key=value, or for the one "key value" of the old
// form.
func eachPair(c *dockerspec.DockerOCIImageConfig, name, args string, set func(key, value string)) error {
	list, err := splitWords(args)
	if err != nil {
		return errs.InvalidArgument("%s %s: %w", name, args, err)
	}
	env := c.Env // as it was before this instruction, as Docker has it
	if !strings.Contains(list[0], "=") {
		if len(list) < 2 {
			return errs.InvalidArgument("%s must have two arguments", name)
		}
		rest := strings.TrimSpace(args[strings.IndexAny(args, " \t"):])
		set(unquote(list[0], env), unquote(rest, env))
		return nil
	}
	for _, word := range list {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return errs.InvalidArgument("Syntax error - can't find = in %q. Must be of the form: name=value", word)
		}
		if key = unquote(key, env); key == "" {
			return errs.InvalidArgument("%s names can not be blank", name)
		}
		set(key, unquote(value, env))
	}
	return nil
}

func setEnv(env []string, key, value string) []string {
	env = slices.Clone(env)
	for i, pair := range env {
		if k, _, _ := strings.Cut(pair, "="); k == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

// words calls each for every word.
func words(c *dockerspec.DockerOCIImageConfig, name, args string, each func(string) error) error {
	list, err := splitWords(args)
	if err != nil {
		return errs.InvalidArgument("%s %s: %w", name, args, err)
	}
	for _, word := range list {
		if err := each(unquote(word, c.Env)); err != nil {
			return err
		}
	}
	return nil
}

// maxPorts bounds what one range of EXPOSE becomes.
const maxPorts = 65536

func applyExpose(c *dockerspec.DockerOCIImageConfig, args string) error {
	ports := maps.Clone(c.ExposedPorts)
	if ports == nil {
		ports = map[string]struct{}{}
	}
	err := words(c, "EXPOSE", args, func(word string) error {
		numbers, proto, ok := strings.Cut(word, "/")
		if proto = strings.ToLower(proto); !ok {
			proto = "tcp"
		}
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return errs.InvalidArgument("invalid proto: %q of EXPOSE %s", proto, word)
		}
		first, last, isRange := strings.Cut(numbers, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || to < from || to-from > maxPorts {
			return errs.InvalidArgument("invalid containerPort: %s", word)
		}
		for port := from; port <= to; port++ {
			ports[strconv.FormatUint(port, 10)+"/"+proto] = struct{}{}
		}
		return nil
	})
	c.ExposedPorts = ports
	return err
}

func applyVolume(c *dockerspec.DockerOCIImageConfig, args string) error {
	volumes := maps.Clone(c.Volumes)
	if volumes == nil {
		volumes = map[string]struct{}{}
	}
	add := func(dir string) error {
		if dir = strings.TrimSpace(dir); dir == "" {
			return errs.InvalidArgument("VOLUME specified can not be an empty string")
		}
		volumes[dir] = struct{}{}
		return nil
	}
	c.Volumes = volumes
	if list, ok, err := jsonList(args); ok {
		if err == nil && len(list) == 0 {
			err = errs.InvalidArgument("VOLUME requires at least one argument")
		}
		if err != nil {
			return err
		}
		for _, dir := range list {
			if err := add(unquote(dir, c.Env)); err != nil {
				return err
			}
		}
		return nil
	}
	return words(c, "VOLUME", args, add)
}

func applyOnBuild(c *dockerspec.DockerOCIImageConfig, args string) error {
	name, _, _ := strings.Cut(args, " ")
	switch strings.ToUpper(name) {
	case "ONBUILD":
		return errs.InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return errs.InvalidArgument("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(name))
	}
	c.OnBuild = append(slices.Clone(c.OnBuild), args)
	return nil
}

// applyHealthcheck reads HEALTHCHECK NONE, or HEALTHCHECK --flags CMD command.
func applyHealthcheck(c *dockerspec.DockerOCIImageConfig, args string) error {
	check := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(args, "--") {
		flag, rest, _ := strings.Cut(args, " ")
		args = strings.TrimSpace(rest)
		if err := healthFlag(check, flag); err != nil {
			return err
		}
	}
	kind, command, _ := strings.Cut(args, " ")
	command = strings.TrimSpace(command)
	switch strings.ToUpper(kind) {
	case "NONE":
		if command != "" {
			return errs.InvalidArgument("HEALTHCHECK NONE takes no arguments")
		}
		check.Test = []string{"NONE"}
	case "CMD":
		list, ok, err := jsonList(command)
		if err != nil {
			return err
		}
		switch {
		case command == "" || ok && len(list) == 0:
			return errs.InvalidArgument("Missing command after HEALTHCHECK CMD")
		case ok:
			check.Test = append([]string{"CMD"}, list...)
		default:
			check.Test = []string{"CMD-SHELL", command}
		}
	default:
		return errs.InvalidArgument("Unknown type %q in HEALTHCHECK (try CMD)", kind)
	}
	c.Healthcheck = check
	return nil
}

func healthFlag(check *dockerspec.HealthcheckConfig, flag string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return errs.InvalidArgument("--retries of HEALTHCHECK cannot be %q", value)
		}
		check.Retries = n
		return nil
	}
	target := map[string]*time.Duration{
		"interval":       &check.Interval,
		"timeout":        &check.Timeout,
		"start-period":   &check.StartPeriod,
		"start-interval": &check.StartInterval,
	}[name]
	if target == nil {
		return errs.InvalidArgument("Unknown flag: %s", name)
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > 0 && d < time.Millisecond {
		return errs.InvalidArgument("--%s of HEALTHCHECK cannot be %q", name, value)
	}
	*target = d
	return nil
}
