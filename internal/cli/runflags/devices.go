package runflags

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// devices are nodes of the host, CDI devices and GPU requests.
type devices struct {
	device     List
	cgroupRule List
	gpus       parsed[container.DeviceRequest]
}

func (d *devices) add(fs *pflag.FlagSet) {
	d.cgroupRule.check = checkDeviceRule
	d.gpus = parsed[container.DeviceRequest]{name: "gpu-request", parse: parseGPU}
	fs.Var(&d.device, "device", "Add a host device to the container")
	fs.Var(&d.cgroupRule, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	fs.Var(&d.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
}

// apply runs after resources, whose struct it completes.
func (d *devices) apply(c *Container) error {
	r := &c.HostConfig.Resources
	r.DeviceCgroupRules = d.cgroupRule.values
	r.DeviceRequests = d.gpus.values
	r.Devices = []container.DeviceMapping{}
	var cdi []string
	for _, v := range d.device.values {
		if isCDI(v) {
			cdi = append(cdi, v)
			continue
		}
		m, err := parseDevice(v)
		if err != nil {
			return err
		}
		r.Devices = append(r.Devices, m)
	}
	if len(cdi) > 0 {
		r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return nil
}

// parseDevice reads host[:container][:mode], where a second part that is a mode
// is taken for one.
func parseDevice(v string) (container.DeviceMapping, error) {
	parts := strings.Split(v, ":")
	if len(parts) > 3 || parts[0] == "" {
		return container.DeviceMapping{}, fmt.Errorf("bad format for path: %s", v)
	}
	m := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	switch {
	case len(parts) == 1:
		m.PathOnHost = path.Clean(parts[0])
		m.PathInContainer = m.PathOnHost
	case len(parts) == 2 && isDeviceMode(parts[1]):
		m.PathOnHost = path.Clean(parts[0])
		m.PathInContainer, m.CgroupPermissions = m.PathOnHost, parts[1]
	case len(parts) == 2:
		m.PathInContainer = path.Clean(parts[1])
	default:
		if !isDeviceMode(parts[2]) {
			return m, fmt.Errorf("bad mode specified: %s", parts[2])
		}
		m.PathInContainer, m.CgroupPermissions = parts[1], parts[2]
	}
	if !path.IsAbs(m.PathInContainer) {
		return m, fmt.Errorf("%s is not an absolute path", m.PathInContainer)
	}
	return m, nil
}

// isDeviceMode accepts r, w and m in any order, each at most once.
func isDeviceMode(s string) bool {
	seen := 0
	for _, c := range s {
		bit := strings.IndexRune("rwm", c)
		if bit < 0 || seen&(1<<bit) != 0 {
			return false
		}
		seen |= 1 << bit
	}
	return s != ""
}

// checkDeviceRule accepts "type major:minor mode", such as "c 1:* rwm".
func checkDeviceRule(v string) (string, error) {
	bad := fmt.Errorf("invalid device cgroup format '%s'", v)
	f := strings.Split(v, " ")
	if len(f) != 3 || len(f[0]) != 1 || !strings.Contains("acb", f[0]) {
		return "", bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok || !deviceNumber(major) || !deviceNumber(minor) {
		return "", bad
	}
	if len(f[2]) < 1 || len(f[2]) > 3 || strings.Trim(f[2], "rwm") != "" {
		return "", bad
	}
	return v, nil
}

func deviceNumber(s string) bool {
	return s == "*" || s != "" && strings.Trim(s, "0123456789") == ""
}

// isCDI recognises vendor.com/class=name of the Container Device Interface.
func isCDI(v string) bool {
	kind, name, ok := strings.Cut(v, "=")
	vendor, class, ok2 := strings.Cut(kind, "/")
	return ok && ok2 && cdiPart(vendor, "_-.", true) && cdiPart(class, "_-.", true) && cdiPart(name, "_-.:", false)
}

func cdiPart(s, inner string, letterFirst bool) bool {
	if s == "" {
		return false
	}
	letter := func(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
	alnum := func(c byte) bool { return letter(c) || '0' <= c && c <= '9' }
	if letterFirst && !letter(s[0]) || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !alnum(s[i]) && !strings.Contains(inner, s[i:i+1]) {
			return false
		}
	}
	return true
}

// parseGPU reads all, a number, or key=value pairs separated by commas.
func parseGPU(v string) (req container.DeviceRequest, err error) {
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return req, err
	}
	seen := map[string]bool{}
	for _, field := range fields {
		k, val, has := strings.Cut(field, "=")
		if seen[k] {
			return req, fmt.Errorf("gpu request key '%s' can be specified only once", k)
		}
		seen[k] = true
		if !has {
			k, val = "count", k
			seen[k] = true
		}
		if err := gpuField(&req, k, val, field); err != nil {
			return req, err
		}
	}
	if !seen["count"] && req.DeviceIDs == nil {
		req.Count = 1
	}
	if req.Options == nil {
		req.Options = map[string]string{}
	}
	if req.Capabilities == nil {
		req.Capabilities = [][]string{{"gpu"}}
	}
	return req, nil
}

func gpuField(req *container.DeviceRequest, k, v, field string) (err error) {
	switch k {
	case "driver":
		req.Driver = v
	case "count":
		req.Count, err = gpuCount(v)
	case "device":
		req.DeviceIDs = strings.Split(v, ",")
	case "capabilities":
		req.Capabilities = [][]string{append(strings.Split(v, ","), "gpu")}
	case "options":
		opts, err := csv.NewReader(strings.NewReader(v)).Read()
		if err != nil {
			return fmt.Errorf("failed to read gpu options: %w", err)
		}
		req.Options = Pairs(opts)
	default:
		err = fmt.Errorf("unexpected key '%s' in '%s'", k, field)
	}
	return err
}

func gpuCount(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		var num *strconv.NumError
		if errors.As(err, &num) {
			err = num.Err
		}
		return 0, fmt.Errorf(`invalid count (%s): value must be either "all" or an integer: %w`, s, err)
	}
	return n, nil
}
