// Command wget fetches a URL: wget [-q] [-S] [-O FILE] [-T SECONDS]
// [--header LINE]... [--post-data DATA] [--no-check-certificate] [--spider] URL.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

type options struct {
	quiet, headers, spider, insecure bool
	output, post                     string
	lines                            []string
	timeout                          time.Duration
}

func main() {
	o, url, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "wget: %v\nusage: wget [-q] [-S] [-O FILE] [-T SECONDS] [--header LINE]... "+
			"[--post-data DATA] [--no-check-certificate] [--spider] URL\n", err)
		os.Exit(1)
	}
	if err := fetch(o, url); err != nil {
		fmt.Fprintf(os.Stderr, "wget: %v\n", err)
		os.Exit(1)
	}
}

// parse reads the arguments, of which letters may be joined as in -qO-.
func parse(args []string) (o options, url string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if !strings.HasPrefix(arg, "-") {
			url = arg
			continue
		}
		take := func(joined string) (value string) {
			if joined == "" && len(args) > 0 {
				joined, args = args[0], args[1:]
			}
			return joined
		}
		if name, value, hasValue := strings.Cut(arg, "="); strings.HasPrefix(arg, "--") {
			if !hasValue {
				value = ""
			}
			switch name {
			case "--quiet":
				o.quiet = true
			case "--spider":
				o.spider = true
			case "--server-response":
				o.headers = true
			case "--no-check-certificate":
				o.insecure = true
			case "--header":
				o.lines = append(o.lines, take(value))
			case "--post-data":
				o.post = take(value)
			case "--output-document":
				o.output = take(value)
			case "--timeout":
				err = o.setTimeout(take(value))
			default:
				err = fmt.Errorf("unknown option %s", name)
			}
		} else {
			for letters := arg[1:]; letters != ""; {
				letter, rest := letters[0], letters[1:]
				letters = rest
				switch letter {
				case 'q':
					o.quiet = true
				case 'S':
					o.headers = true
				case 'c', 'n', 'v':
				case 'O':
					o.output, letters = take(rest), ""
				case 'T':
					err, letters = o.setTimeout(take(rest)), ""
				default:
					err = fmt.Errorf("unknown option -%c", letter)
				}
			}
		}
		if err != nil {
			return o, "", err
		}
	}
	if url == "" {
		return o, "", fmt.Errorf("missing URL")
	}
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	return o, url, nil
}

func (o *options) setTimeout(s string) error {
	seconds, err := strconv.ParseFloat(s, 64)
	o.timeout = time.Duration(seconds * 1e9)
	return err
}

func fetch(o options, url string) error {
	client := &http.Client{Timeout: o.timeout, Transport: &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: o.insecure},
	}}
	method, body := http.MethodGet, io.Reader(nil)
	switch {
	case o.post != "":
		method, body = http.MethodPost, strings.NewReader(o.post)
	case o.spider:
		method = http.MethodHead
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	if o.post != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, line := range o.lines {
		name, value, _ := strings.Cut(line, ":")
		req.Header.Add(name, strings.TrimSpace(value))
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if o.headers {
		fmt.Fprintf(os.Stderr, "  %s %s\n", resp.Proto, resp.Status)
		resp.Header.Write(os.Stderr)
	}
	if resp.StatusCode >= 400 {
		return fmt.Errorf("server returned error: %s %s", resp.Proto, resp.Status)
	}
	if o.spider {
		return nil
	}
	return save(o, resp)
}

func save(o options, resp *http.Response) error {
	name := o.output
	if name == "" {
		if name = path.Base(resp.Request.URL.Path); name == "/" || name == "." {
			name = "index.html"
		}
	}
	if name == "-" {
		_, err := io.Copy(os.Stdout, resp.Body)
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, resp.Body)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && !o.quiet {
		fmt.Fprintf(os.Stderr, "%s: %d bytes saved\n", name, n)
	}
	return err
}
