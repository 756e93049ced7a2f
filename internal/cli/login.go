package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/config"
)

type loginFlags struct {
	user, password string
	passwordStdin  bool
}

func (a *app) loginCommand() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Authenticate to a registry",
		Long:  "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
		Args:  maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags()); err != nil {
				return err
			}
			server := config.Hub
			if len(args) > 0 && args[0] != "" && args[0] != "docker.io" {
				server = args[0]
			}
			return a.login(cmd.Context(), &f, server)
		},
		ValidArgsFunction: a.completeRegistries(),
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.user, "username", "u", "", "Username")
	fs.StringVarP(&f.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	fs.BoolVar(&f.passwordStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

func (f *loginFlags) check(fs *pflag.FlagSet) error {
	switch {
	case fs.Changed("password-stdin") && fs.Changed("password"):
		return errors.New("conflicting options: cannot specify both --password and --password-stdin")
	case fs.Changed("password-stdin") && !fs.Changed("username"):
		return errors.New("the --password-stdin option requires --username to be set")
	case fs.Changed("username") && f.user == "":
		return errors.New("username is empty")
	case fs.Changed("password") && f.password == "":
		return errors.New("password is empty")
	}
	return nil
}

// login tries what is already kept, when nothing else was given, and asks for
// what is missing.
func (a *app) login(ctx context.Context, f *loginFlags, server string) error {
	if f.password != "" {
		fmt.Fprintln(a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if f.passwordStdin {
		text, err := io.ReadAll(a.in)
		if err != nil {
			return err
		}
		f.password = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	}
	key := server
	if key != config.Hub {
		key = config.Hostname(key)
	}
	kept := config.Credentials{ServerAddress: key}
	if f.user == "" && f.password == "" {
		// One that cannot be read is asked for again.
		if c, ok, err := a.config().Credentials(key); err == nil && ok {
			kept.Username, kept.Password = c.Username, c.Password
		}
	}
	if kept.Username != "" && kept.Password != "" {
		fmt.Fprintf(a.err, "Authenticating with existing credentials... [Username: %s]\n", kept.Username)
		a.note(a.err, "To login with a different account, run 'gantry logout' followed by 'gantry login'")
		fmt.Fprint(a.err, "\n\n")
		err := a.authenticate(ctx, kept)
		if err == nil {
			return nil
		}
		if refused(err) {
			fmt.Fprintln(a.err, "Stored credentials invalid or expired")
		} else {
			fmt.Fprintln(a.err, "Login did not succeed, error:", err)
		}
	}
	c, err := a.askCredentials(f, kept.Username, key)
	if err != nil {
		return err
	}
	return a.authenticate(ctx, c)
}

func refused(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Status == client.StatusUnauthorized
}

// authenticate has the engine try the login, and keeps it when it is good. A
// registry that gives an identity token for a password is asked with that from
// now on, and the password is kept nowhere.
func (a *app) authenticate(ctx context.Context, c config.Credentials) error {
	auth := authConfig(c)
	var ok registry.AuthResponse
	if err := a.json(ctx, &client.Request{Method: client.MethodPost, Path: "/auth", JSON: &auth}, &ok); err != nil {
		return err
	}
	if ok.IdentityToken != "" {
		c.Password, c.IdentityToken = "", ok.IdentityToken
	}
	plain, err := a.config().Store(c)
	if err != nil {
		return fmt.Errorf("Error saving credentials: %w", err)
	}
	if plain != "" {
		fmt.Fprintf(a.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", plain)
	}
	if ok.Status != "" {
		fmt.Fprintln(a.out, ok.Status)
	}
	return nil
}

// askCredentials completes what the flags gave. known is offered as the user's
// name.
func (a *app) askCredentials(f *loginFlags, known, key string) (config.Credentials, error) {
	c := config.Credentials{Username: strings.TrimSpace(f.user), Password: strings.TrimSpace(f.password), ServerAddress: key}
	if (f.user == "" || f.password == "") && !isTerminal(a.in) {
		return c, errors.New("Error: Cannot perform an interactive login from a non TTY device")
	}
	var err error
	if c.Username == "" {
		if key == config.Hub {
			fmt.Fprintln(a.out, "Log in with your Docker ID or e-mail address to push and pull images from Docker Hub.")
		}
		question := "Username: "
		if known != "" {
			question = fmt.Sprintf("Username (%s): ", known)
		}
		if c.Username, err = a.ask(question); err != nil {
			return c, err
		}
		if c.Username == "" {
			c.Username = known
		}
		if c.Username == "" {
			return c, errors.New("Error: Non-null Username Required")
		}
	}
	if c.Password == "" {
		if key == config.Hub {
			a.note(a.err, "A Personal Access Token (PAT) can be used instead of the password.\n")
		}
		if c.Password, err = a.askSecret("Password: "); err != nil {
			return c, err
		}
		if c.Password == "" {
			return c, errors.New("Error: Password Required")
		}
	}
	return c, nil
}

// ask reads one line from the terminal.
func (a *app) ask(question string) (string, error) {
	fmt.Fprint(a.out, question)
	var line []byte
	// One byte at a time: what follows the line belongs to the next question.
	for one := make([]byte, 1); ; {
		n, err := a.in.Read(one)
		if n > 0 && one[0] == '\n' || err != nil && len(line) > 0 {
			return strings.TrimSpace(string(line)), nil
		}
		if err != nil {
			return "", err
		}
		line = append(line, one[:n]...)
	}
}

// askSecret reads one line that is not shown: the terminal stops to show what
// is typed before it asks, and shows it again whatever the answer was.
func (a *app) askSecret(question string) (string, error) {
	restore, err := a.rawMode()
	if err != nil {
		return "", err
	}
	defer restore()
	text, err := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{a.in, a.out}, "").ReadPassword(question)
	if errors.Is(err, io.EOF) { // Ctrl-C, or Ctrl-D
		restore()
		fmt.Fprintln(a.out)
		return "", &exitError{code: 130}
	}
	return strings.TrimSpace(text), err
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout [SERVER]",
		Short: "Log out from a registry",
		Long:  "Log out from a registry.\nDefaults to Docker Hub if no server is specified.",
		Args:  maxArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			server := ""
			if len(args) > 0 {
				server = args[0]
			}
			a.logout(server)
			return nil
		},
		ValidArgsFunction: a.completeRegistries(),
	}
}

// logout forgets the login under every name that older clients may have kept it
// under. It fails when none of them could be forgotten, and says so as a
// warning: who logs out twice is logged out.
func (a *app) logout(server string) {
	keys, host := []string{config.Hub}, config.Hub
	if server != "" {
		host = config.Hostname(server)
		keys = []string{server, host, "http://" + host, "https://" + host}
	}
	fmt.Fprintln(a.out, "Removing login credentials for", host)
	failed := map[string]error{}
	done := false
	for _, key := range keys {
		if err := a.config().Erase(key); err != nil {
			failed[key] = err
		} else {
			done = true
		}
	}
	if done {
		return
	}
	w := bufio.NewWriter(a.err)
	defer w.Flush()
	fmt.Fprintln(w, "WARNING: could not erase credentials:")
	for key, err := range failed {
		fmt.Fprintf(w, "%s: %s\n", key, err)
	}
}

// completeRegistries offers the registries there are logins for in the file.
func (a *app) completeRegistries() completion {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for key := range a.config().Auths {
			names = append(names, config.Hostname(key))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
