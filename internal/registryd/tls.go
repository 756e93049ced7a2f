package registryd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// certificates is what the registry shows to clients. It can be exchanged while
// connections are open.
type certificates struct {
	present atomic.Pointer[tls.Certificate]
	clients *x509.CertPool // nil: nobody is asked
}

// config is for a listener.
func (c *certificates) config() *tls.Config {
	o := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.present.Load(), nil
		},
	}
	if c.clients != nil {
		o.ClientCAs, o.ClientAuth = c.clients, tls.RequireAndVerifyClientCert
	}
	return o
}

// load reads the certificate the configuration names, or makes one.
func (c *certificates) load(config *Config, log *slog.Logger) error {
	if config.TLS.ClientCA != "" && c.clients == nil {
		data, err := os.ReadFile(config.TLS.ClientCA)
		if err != nil {
			return errs.InvalidArgument("cannot read the certificate authority of clients: %w", err)
		}
		c.clients = x509.NewCertPool()
		if !c.clients.AppendCertsFromPEM(data) {
			return errs.InvalidArgument("there is no certificate in %s", config.TLS.ClientCA)
		}
	}
	cert, key := config.TLS.Cert, config.TLS.Key
	if config.TLS.SelfSigned {
		a := authority{dir: filepath.Join(config.Root, "tls"), log: log}
		if err := a.renew(namesFor(config), time.Now()); err != nil {
			return errs.System("cannot make a certificate: %w", err)
		}
		cert, key = a.path("server.crt"), a.path("server.key")
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return errs.InvalidArgument("cannot use the TLS certificate: %w", err)
	}
	c.present.Store(&pair)
	return nil
}

// namesFor are the names and addresses under which clients may know us.
func namesFor(c *Config) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	for _, address := range c.Listen {
		proto, at, err := network(address)
		if err != nil || proto != "tcp" {
			continue
		}
		host, _, err := net.SplitHostPort(at)
		if err != nil {
			continue
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			names = append(names, interfaceAddresses()...)
			continue
		}
		names = append(names, host)
	}
	if c.Host != "" {
		host, _, err := net.SplitHostPort(c.Host)
		if err != nil { // without a port
			host = c.Host
		}
		names = append(names, host)
	}
	names = append(names, c.TLS.Names...)
	slices.Sort(names)
	return slices.Compact(names)
}

func interfaceAddresses() []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var list []string
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			list = append(list, n.IP.String())
		}
	}
	return list
}

// authority is a certificate authority of our own, in a directory: ca.crt and
// ca.key, and the server.crt and server.key it vouches for.
type authority struct {
	dir string
	log *slog.Logger
}

const (
	authorityYears = 10
	serverDays     = 397 // what clients accept at most
	renewBefore    = 30 * 24 * time.Hour
)

func (a authority) path(name string) string { return filepath.Join(a.dir, name) }

// renew makes what is missing, has other names, or ends soon.
func (a authority) renew(names []string, now time.Time) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	ca, caKey, err := a.read("ca")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if ca == nil {
		if ca, caKey, err = a.makeAuthority(now); err != nil {
			return err
		}
	}
	a.log.Info("the certificate is self-made: clients must trust its authority",
		"authority", a.path("ca.crt"), "sha256", fingerprint(ca), "until", ca.NotAfter.Format(time.DateOnly))
	server, _, err := a.read("server")
	if err == nil && server.CheckSignatureFrom(ca) == nil && now.Add(renewBefore).Before(server.NotAfter) && covers(server, names) {
		return nil
	}
	return a.makeServer(ca, caKey, names, now)
}

func covers(cert *x509.Certificate, names []string) bool {
	for _, name := range names {
		if cert.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}

func (a authority) read(name string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	for _, file := range []string{name + ".crt", name + ".key"} {
		if _, err := os.Stat(a.path(file)); err != nil {
			return nil, nil, err
		}
	}
	pair, err := tls.LoadX509KeyPair(a.path(name+".crt"), a.path(name+".key"))
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("%s is not a key of an elliptic curve", a.path(name+".key"))
	}
	return pair.Leaf, key, nil
}

func (a authority) makeAuthority(now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	host, _ := os.Hostname() // the name is for people
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Gantry"}, CommonName: strings.TrimSpace("Gantry registry authority " + host)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(authorityYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return a.make("ca", template, nil, nil)
}

func (a authority) makeServer(ca *x509.Certificate, caKey *ecdsa.PrivateKey, names []string, now time.Time) error {
	end := now.AddDate(0, 0, serverDays)
	if end.After(ca.NotAfter) {
		end = ca.NotAfter
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Gantry"}, CommonName: "Gantry registry"},
		NotBefore: now.Add(-time.Hour), NotAfter: end, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	_, _, err := a.make("server", template, ca, caKey)
	return err
}

// make signs the template, with the parent's key or its own, and writes both
// files, the key first: a certificate without its key would not be made anew.
func (a authority) make(name string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, signer = template, key
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := a.write(name+".key", "PRIVATE KEY", secret, 0o600); err != nil {
		return nil, nil, err
	}
	if err := a.write(name+".crt", "CERTIFICATE", der, 0o644); err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func (a authority) write(name, kind string, der []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(a.dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), a.path(name))
}
