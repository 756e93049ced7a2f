package registry

import (
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/gantry-containers/gantry/internal/errs"
)

// capability is what a server may be asked for.
type capability uint8

const (
	canPull    capability = 1 << iota // by digest
	canResolve                        // what a tag stands for
	canPush
	canAll = canPull | canResolve | canPush
)

// hostConfig is what is configured for one server.
type hostConfig struct {
	url         *url.URL // up to and with the API's root; nil is the registry itself
	can         capability
	header      http.Header // added to requests to this server, and to no other
	dialTimeout time.Duration
	tls         tlsFiles
}

// tlsFiles are the files and the switch of a TLS connection.
type tlsFiles struct {
	authorities []string
	pairs       [][2]string // certificate and key; the key is in the first file when the second is ""
	skipVerify  *bool
}

func (t *tlsFiles) empty() bool {
	return t.authorities == nil && t.pairs == nil && t.skipVerify == nil
}

// maxHostsFile bounds a hosts.toml: nobody writes more by hand.
const maxHostsFile = 1 << 20

// findHosts returns what is configured for a registry by the name images have:
// the servers to ask before it, and last the registry itself. Nil when there is
// nothing.
func findHosts(dirs []string, name string) ([]hostConfig, error) {
	for _, candidate := range append(hostDirNames(name), "_default") {
		for _, root := range dirs {
			dir := filepath.Join(root, candidate)
			data, err := os.ReadFile(filepath.Join(dir, "hosts.toml"))
			switch {
			case err == nil && len(data) > maxHostsFile:
				return nil, errs.InvalidArgument("%s is larger than %d bytes", filepath.Join(dir, "hosts.toml"), maxHostsFile)
			case err == nil && len(data) > 0:
				hosts, err := parseHosts(dir, data)
				if err != nil {
					return nil, errs.InvalidArgument("cannot use %s: %w", filepath.Join(dir, "hosts.toml"), err)
				}
				return hosts, nil
			case err != nil && !isMissing(err):
				return nil, errs.System("cannot read what is configured for registry %s: %w", name, err)
			}
			files, err := findCertificates(dir)
			if err != nil {
				return nil, err
			}
			if !files.empty() {
				return []hostConfig{{can: canAll, tls: files}}, nil
			}
		}
	}
	return nil, nil
}

// isMissing tells of a file that is not there, nor what should be its directory.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "not a directory")
}

// hostDirNames are the names a registry's directory may have. Those without a
// colon are for file systems that have none.
func hostDirNames(name string) []string {
	if strings.ContainsAny(name, "/\x00") || name == "" || name == "." || name == ".." {
		return nil
	}
	var names []string
	if host, port, err := net.SplitHostPort(name); err == nil {
		names = append(names, host+"_"+port+"_")
	}
	names = append(names, name)
	if registryHost(name) != name {
		names = append(names, registryHost(name))
	}
	return names
}

// findCertificates reads a directory in Docker's layout: *.crt are authorities,
// *.cert and *.key with one name are a certificate of ours.
func findCertificates(dir string) (tlsFiles, error) {
	var files tlsFiles
	entries, err := os.ReadDir(dir)
	if err != nil {
		if isMissing(err) {
			return files, nil
		}
		return files, errs.System("cannot read certificates: %w", err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == name })
	}
	for _, e := range entries {
		name := e.Name()
		switch base := strings.TrimSuffix(name, filepath.Ext(name)); filepath.Ext(name) {
		case ".crt":
			files.authorities = append(files.authorities, filepath.Join(dir, name))
		case ".cert":
			if !has(base + ".key") {
				return files, errs.InvalidArgument("missing key %s.key for client certificate %s in %s. CA certificates must use the extension .crt", base, name, dir)
			}
			files.pairs = append(files.pairs, [2]string{filepath.Join(dir, name), filepath.Join(dir, base+".key")})
		case ".key":
			if !has(base + ".cert") {
				return files, errs.InvalidArgument("missing client certificate %s.cert for key %s in %s", base, name, dir)
			}
		}
	}
	return files, nil
}

// hostTable is a table of hosts.toml.
type hostTable struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

// parseHosts reads a hosts.toml as containerd defines it (its docs/hosts.md).
// Relative paths are below dir. The last of the answer is the registry itself.
func parseHosts(dir string, data []byte) ([]hostConfig, error) {
	var file struct {
		hostTable
		Server string               `toml:"server"`
		Hosts  map[string]hostTable `toml:"host"`
	}
	if err := toml.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	order, err := hostOrder(data)
	if err != nil {
		return nil, err
	}
	var hosts []hostConfig
	// An inline table has no order we could see.
	for _, name := range slices.Sorted(maps.Keys(file.Hosts)) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for _, name := range order {
		table, ok := file.Hosts[name]
		if !ok {
			continue
		}
		host, err := table.config(name, dir)
		if err != nil {
			return nil, errs.InvalidArgument("host %q: %w", name, err)
		}
		if host.url == nil {
			return nil, errs.InvalidArgument("a host without a name")
		}
		hosts = append(hosts, host)
	}
	origin, err := file.config(file.Server, dir)
	if err != nil {
		return nil, errs.InvalidArgument("server %q: %w", file.Server, err)
	}
	return append(hosts, origin), nil
}

// hostOrder lists the hosts of a file in the order they stand there, which is
// the order they are asked in, and which no map keeps.
func hostOrder(data []byte) ([]string, error) {
	var order []string
	add := func(it unstable.Iterator, skip int) {
		var parts []string
		for it.Next() {
			parts = append(parts, string(it.Node().Data))
		}
		if len(parts) > skip && (skip == 0 || parts[0] == "host") && !slices.Contains(order, parts[skip]) {
			order = append(order, parts[skip])
		}
	}
	inHosts := false
	p := unstable.Parser{}
	p.Reset(data)
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table:
			add(e.Key(), 1)
			inHosts = isJustHost(e.Key())
		case unstable.KeyValue:
			if inHosts {
				add(e.Key(), 0)
			} else {
				add(e.Key(), 1)
			}
		}
	}
	return order, p.Error()
}

// isJustHost tells of a table [host], whose keys are hosts.
func isJustHost(key unstable.Iterator) bool {
	return key.Next() && string(key.Node().Data) == "host" && !key.Next()
}

// config checks a table.
func (t *hostTable) config(server, dir string) (host hostConfig, err error) {
	if host.url, err = t.root(server); err != nil {
		return host, err
	}
	if host.can, err = capabilities(t.Capabilities); err != nil {
		return host, err
	}
	host.tls.skipVerify = t.SkipVerify
	if host.tls.authorities, err = texts(t.CA); err != nil {
		return host, errs.InvalidArgument("ca: %w", err)
	}
	for i, file := range host.tls.authorities {
		host.tls.authorities[i] = below(dir, file)
	}
	if host.tls.pairs, err = pairs(t.Client); err != nil {
		return host, errs.InvalidArgument("client: %w", err)
	}
	for i, pair := range host.tls.pairs {
		host.tls.pairs[i] = [2]string{below(dir, pair[0]), below(dir, pair[1])}
	}
	for name, value := range t.Header {
		values, err := texts(value)
		if err != nil {
			return host, errs.InvalidArgument("header %s: %w", name, err)
		}
		if host.header == nil {
			host.header = http.Header{}
		}
		for _, v := range values {
			host.header.Add(name, v)
		}
	}
	if t.DialTimeout != "" {
		if host.dialTimeout, err = time.ParseDuration(t.DialTimeout); err != nil || host.dialTimeout <= 0 {
			return host, errs.InvalidArgument("dial_timeout: %q is not a duration such as 5s", t.DialTimeout)
		}
	}
	return host, nil
}

// root is the URL of the API of a server. Nil when none is named.
func (t *hostTable) root(server string) (*url.URL, error) {
	if server == "" {
		return nil, nil
	}
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errs.InvalidArgument("it is not a URL such as https://mirror.example")
	}
	root := &url.URL{Scheme: u.Scheme, Host: u.Host}
	if u.Path != "" {
		root.Path = strings.TrimSuffix(path.Clean(u.Path), "/")
	}
	if !t.OverridePath && !strings.HasSuffix(root.Path, "/v2") {
		root.Path += "/v2"
	}
	if root.Host == "docker.io" || root.Host == "index.docker.io" {
		root.Host = dockerHub // the site is no registry
	}
	return root, nil
}

func capabilities(words []string) (can capability, err error) {
	if len(words) == 0 {
		return canAll, nil
	}
	for _, word := range words {
		switch strings.ToLower(word) {
		case "pull":
			can |= canPull
		case "resolve":
			can |= canResolve
		case "push":
			can |= canPush
		case "referrers": // asked of the registry itself only
		default:
			return 0, errs.InvalidArgument("unknown capability %q: there are pull, resolve, push and referrers", word)
		}
	}
	return can, nil
}

func below(dir, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// texts reads a string or a list of them.
func texts(value any) ([]string, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		list := make([]string, len(v))
		for i, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, errs.InvalidArgument("%v is not a string", item)
			}
			list[i] = s
		}
		return list, nil
	}
	return nil, errs.InvalidArgument("%v is neither a string nor a list of strings", value)
}

// pairs reads a file, a list of files, or a list of pairs of certificate and key.
func pairs(value any) ([][2]string, error) {
	items, ok := value.([]any)
	if !ok {
		list, err := texts(value)
		if err != nil || list == nil {
			return nil, err
		}
		return [][2]string{{list[0], ""}}, nil
	}
	var list [][2]string
	for _, item := range items {
		files, err := texts(item)
		if err != nil {
			return nil, err
		}
		switch len(files) {
		case 1:
			list = append(list, [2]string{files[0], ""})
		case 2:
			list = append(list, [2]string{files[0], files[1]})
		default:
			return nil, errs.InvalidArgument("%v is not a pair of certificate and key", item)
		}
	}
	return list, nil
}
