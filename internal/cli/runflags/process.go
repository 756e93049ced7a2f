package runflags

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// process is what is executed, as whom, where, and with which streams.
type process struct {
	attach     List
	entrypoint string
	env        List
	envFile    List
	user       string
	groupAdd   List
	workdir    string
	hostname   string
	domainname string
	tty        bool
	stdin      bool
	init       bool
	labels     List
	labelFile  List
	annotation Map
}

func (p *process) add(fs *pflag.FlagSet) {
	p.attach.check = checkAttach
	p.env.check = CheckEnv
	p.labels.check = CheckLabel
	fs.VarP(&p.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.StringVar(&p.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.VarP(&p.env, "env", "e", "Set environment variables")
	fs.Var(&p.envFile, "env-file", "Read in a file of environment variables")
	fs.StringVarP(&p.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.Var(&p.groupAdd, "group-add", "Add additional groups to join")
	fs.StringVarP(&p.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.StringVarP(&p.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&p.domainname, "domainname", "", "Container NIS domain name")
	fs.BoolVarP(&p.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVarP(&p.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVar(&p.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.VarP(&p.labels, "label", "l", "Set meta data on a container")
	fs.Var(&p.labelFile, "label-file", "Read in a line delimited file of labels")
	fs.Var(&p.annotation, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
}

func (p *process) apply(c *Container) error {
	env, err := ReadEnv(p.envFile.values, p.env.values)
	if err != nil {
		return err
	}
	labels, err := readPairs(p.labelFile.values, p.labels.values, nil)
	if err != nil {
		return err
	}
	cfg := c.Config
	cfg.Env = env
	cfg.Labels = Pairs(labels)
	cfg.Hostname, cfg.Domainname = p.hostname, p.domainname
	cfg.User, cfg.WorkingDir = p.user, p.workdir
	cfg.Tty, cfg.OpenStdin = p.tty, p.stdin
	if p.entrypoint != "" {
		cfg.Entrypoint = []string{p.entrypoint}
	}
	all := len(p.attach.values) == 0
	cfg.AttachStdin = p.stdin || hasFold(p.attach.values, "stdin")
	cfg.AttachStdout = all || hasFold(p.attach.values, "stdout")
	cfg.AttachStderr = all || hasFold(p.attach.values, "stderr")
	// A pipe that ends must end the container's input too.
	cfg.StdinOnce = cfg.OpenStdin && cfg.AttachStdin
	c.HostConfig.GroupAdd = p.groupAdd.values
	c.HostConfig.Annotations = p.annotation.values
	return nil
}

func checkAttach(v string) (string, error) {
	switch s := strings.ToLower(v); s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return "", errors.New("valid streams are STDIN, STDOUT and STDERR")
}

// CheckEnv gives NAME its value from the environment; a name that is not set
// there stays as it is, which removes it from the image's.
func CheckEnv(v string) (string, error) {
	k, _, has := strings.Cut(v, "=")
	if k == "" {
		return "", fmt.Errorf("invalid environment variable: %s", v)
	}
	if has {
		return v, nil
	}
	if val, ok := os.LookupEnv(k); ok {
		return k + "=" + val, nil
	}
	return v, nil
}

// CheckLabel refuses labels without a name or with blanks in it.
func CheckLabel(v string) (string, error) {
	k := strings.TrimLeft(key(v), " \t")
	if k == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", v)
	}
	if strings.ContainsAny(k, " \t") {
		return "", fmt.Errorf("label '%s' contains whitespaces", k)
	}
	return v, nil
}
