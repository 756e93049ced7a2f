package cli

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns both ends of a new terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// A terminal is handed to the container whole: every key as it is typed, the
// size at the start and when it changes, and the detach sequence leaves it
// running.
func TestRunTerminal(t *testing.T) {
	master, slave := openPTY(t)
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99}); err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	typed := make(chan string, 10)
	f.answer(attachRoute, answer{stream: func(c net.Conn) {
		fmt.Fprint(c, "prompt# ")
		buf := make([]byte, 100)
		for {
			n, err := c.Read(buf)
			if n > 0 {
				typed <- string(buf[:n])
			}
			if err != nil {
				close(typed)
				return
			}
		}
	}})
	waiting := make(chan bool)
	f.answer("POST /containers/"+fakeID+"/wait", answer{body: "", stall: waiting})
	defer close(waiting)
	sizes := make(chan bool, 10)
	f.answer("POST /containers/"+fakeID+"/resize", answer{status: 200, then: func() { sizes <- true }})

	cmd := command(t, "gantry", f.Host, "run", "-it", "busybox")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	screen := bufio.NewReader(master)
	master.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := screen.ReadString('#'); err != nil || got != "prompt#" {
		t.Fatalf("the screen shows %q, %v", got, err)
	}
	within(t, sizes, "the first size")
	unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 70})
	within(t, sizes, "the size after it changed")

	fmt.Fprint(master, "\x03") // Ctrl-C is the container's
	if got := <-typed; got != "\x03" {
		t.Errorf("the container got %q", got)
	}
	fmt.Fprint(master, "\x10x\x10")
	if got := <-typed; !strings.HasPrefix("\x10x", got) || got == "" {
		t.Errorf("the container got %q", got)
	}
	fmt.Fprint(master, "\x11")
	done := make(chan bool, 1)
	go func() { cmd.Wait(); done <- true }()
	within(t, done, "detaching")
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after detaching", code)
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %v", err)
	}
	var create, resize []call
	for _, c := range f.take() {
		switch {
		case strings.HasSuffix(c.Path, "/resize"):
			resize = append(resize, c)
		case strings.HasSuffix(c.Path, "/create"):
			create = append(create, c)
		}
	}
	if size := create[0].Body.(map[string]any)["HostConfig"].(map[string]any)["ConsoleSize"]; fmt.Sprint(size) != "[33 99]" {
		t.Errorf("the container is created with a terminal of %v", size)
	}
	if q := resize[len(resize)-1].Query; q.Get("h") != "20" || q.Get("w") != "70" {
		t.Errorf("resized to %v", q)
	}
}

func within(t *testing.T, c <-chan bool, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("timed out waiting for ", what)
	}
}

// A person is asked for what the command line leaves out, and nobody sees the
// password; who is known already needs to press Return only; and who gives up
// at the password has a terminal that shows again what is typed.
func TestLoginPrompts(t *testing.T) {
	f := newFake(t)
	f.answer("POST /auth", answer{body: `{"Status":"Login Succeeded"}`, by: func(c call) answer {
		if strings.Contains(fmt.Sprint(c.Body), "old") {
			return answer{status: 401, body: `{"message":"unauthorized"}`}
		}
		return answer{status: 200, body: `{"Status":"Login Succeeded"}`}
	}})
	for _, test := range []struct {
		name, config, args string
		dialog             []string // what is shown, what is typed, what is shown, …
		sent               string
	}{
		{"all", "", "localhost:5000", []string{"Username: ", "ich\r", "Password: ", "geheim\r", "Login Succeeded"}, "map[password:geheim serveraddress:localhost:5000 username:ich]"},
		{"password", "", "-u ich localhost:5000", []string{"Password: ", "geheim\r", "Login Succeeded"}, "map[password:geheim serveraddress:localhost:5000 username:ich]"},
		{"known", `{"auths":{"localhost:5000":{"auth":"aWNoOm9sZA=="}}}`, "localhost:5000", []string{"invalid or expired", "", "Username (ich): ", "\r", "Password: ", "neu\r", "Login Succeeded"}, "map[password:neu serveraddress:localhost:5000 username:ich]"},
		{"no name", "", "localhost:5000", []string{"Username: ", "\r", "Non-null Username Required"}, ""},
		{"no password", "", "-u ich localhost:5000", []string{"Password: ", "\r", "Password Required"}, ""},
		{"given up", "", "-u ich localhost:5000", []string{"Password: ", "geh\x03"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			master, slave := openPTY(t)
			before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			w := newWallet(t, test.config)
			cmd := command(t, "gantry", f.Host, append([]string{"login"}, strings.Fields(test.args)...)...)
			cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+w.dir)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			// A terminal knows no deadline: its reader ends when nobody holds the
			// other end any more.
			slave.Close()
			late := time.AfterFunc(15*time.Second, func() { cmd.Process.Kill() })
			defer late.Stop()
			shown, all := "", ""
			buf := make([]byte, 1000)
			for i, text := range test.dialog {
				if i%2 == 1 {
					fmt.Fprint(master, text)
					continue
				}
				for !strings.Contains(shown, text) {
					n, err := master.Read(buf)
					if err != nil {
						t.Fatalf("%q is not shown, but %q: %v", text, shown, err)
					}
					shown += string(buf[:n])
					all += string(buf[:n])
				}
				// What came with it may be the next question already.
				_, shown, _ = strings.Cut(shown, text)
			}
			done := make(chan bool, 1)
			go func() { cmd.Wait(); done <- true }()
			within(t, done, "the end of the login")
			if strings.Contains(all, "geheim") || strings.Contains(all, "neu") {
				t.Errorf("the password is shown: %q", all)
			}
			after, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("the terminal is not as it was: %v", err)
			}
			sent := ""
			for _, c := range f.take() {
				sent = fmt.Sprint(c.Body)
			}
			if sent != test.sent {
				t.Errorf("the engine is asked with %s, want %s", sent, test.sent)
			}
		})
	}
}
