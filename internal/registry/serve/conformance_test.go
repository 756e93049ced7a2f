package serve

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// requirement is a MUST or SHOULD of the OCI distribution specification 1.1 that
// concerns a registry: its section, the word, what is asked in short, and the
// check. Those for clients are not ours to meet here.
type requirement struct {
	section, word, text string
	check               func(p *peer) error
}

// requirements is the specification, from its top to its end.
func requirements() []requirement {
	return []requirement{
		{"Requirements", "MUST", "all of Pull; SHOULD: Push, Content Discovery, Content Management", wholeLife},

		{"Pulling manifests", "MUST", "a repository's name is of the grammar", repositoryNames},
		{"Pulling manifests", "MUST", "a tag has at most 128 characters, of the grammar", tagNames},
		{"Pulling manifests", "MUST NOT", "a reference is of no other form", otherReferences},
		{"Pulling manifests", "SHOULD NOT", "Content-Type of an answer has no parameters, SHOULD be what was pushed", contentTypes},
		{"Pulling manifests", "MUST", "GET answers 200 with the manifest", pullManifest},
		{"Pulling manifests", "MUST", "Docker-Content-Digest names the manifest", manifestDigest},
		{"Pulling manifests", "MUST", "404 for a manifest that is not there", manifest404},

		{"Pulling blobs", "MUST", "GET answers 200 with the blob", pullBlob},
		{"Pulling blobs", "MUST", "Docker-Content-Digest matches the body", blobDigest},
		{"Pulling blobs", "MUST", "404 for a blob that is not there", blob404},
		{"Pulling blobs", "SHOULD", "Range requests as in RFC 9110", blobRanges},

		{"Checking if content exists in the registry", "MUST", "HEAD answers 200 with digest and size", headContent},
		{"Checking if content exists in the registry", "MUST", "404 for what is not there", head404},

		{"Push", "MUST", "a manifest is taken although its subject is not there", subjectLater},
		{"Push", "MUST", "a manifest refused for what it names says MANIFEST_BLOB_UNKNOWN", missingBlobs},

		{"Pushing blobs", "SHOULD", "400 for a bad digest or an unsupported algorithm", badDigests},
		{"POST then PUT", "MUST", "202 and a Location with a UUID", uploadLocation},
		{"POST then PUT", "MUST", "201 and the Location of the blob", postPut},
		{"Single POST", "MUST", "201 and the Location of the blob; length and digest match", singlePost},
		{"Pushing a blob in chunks", "SHOULD", "digest-algorithm is honoured", sha512Upload},
		{"Pushing a blob in chunks", "MUST", "each chunk: 202, Location and Range", chunks},
		{"Pushing a blob in chunks", "MUST", "416 for a chunk out of order", chunkOrder},
		{"Pushing a blob in chunks", "MUST", "the last chunk comes with PATCH or PUT", lastChunk},
		{"Pushing a blob in chunks", "MUST", "416 for a last chunk out of order", lastChunkOrder},
		{"Pushing a blob in chunks", "MUST", "GET of an upload: 204, Location and Range", uploadStatus},
		{"Cancel a blob upload", "SHOULD", "204, and the upload is gone", cancelUpload},
		{"Mounting a blob from another repository", "MUST", "201 and the Location of the blob", mountBlob},
		{"Mounting a blob from another repository", "SHOULD", "202 when it cannot be mounted", mountNothing},

		{"Pushing Manifests", "SHOULD", "parameters of the Content-Type are ignored", contentTypeParameters},
		{"Pushing Manifests", "MUST", "the manifest is stored byte by byte", exactBytes},
		{"Pushing Manifests", "MUST", "201, Location, Docker-Content-Digest as the client's", putManifestAnswer},
		{"Pushing Manifests", "MAY", "the list of blobs is empty", noLayers},
		{"Pushing Manifests", "SHOULD", "ten tags with one push, MUST be told in OCI-Tag", manyTags},
		{"Pushing Manifests", "MUST", "404 for a repository that is not there", repository404},
		{"Pushing Manifests", "SHOULD", "4 MB are taken, 413 for more than the limit", manifestLimit},
		{"Pushing Manifests with Subject", "MUST", "OCI-Subject names the subject", subjectHeader},

		{"Listing Tags", "MUST", "200, the document, in order", tagsList},
		{"Listing Tags", "MUST", "n entries, or fewer with a Link", tagsPages},
		{"Listing Tags", "MUST", "n=0: an empty list without a Link", tagsZero},
		{"Listing Tags", "MUST", "last begins after a tag, also without n", tagsLast},

		{"Listing Referrers", "MUST", "200 and an index, also when nothing refers; never 404", referrersEmpty},
		{"Listing Referrers", "MUST", "400 for a bad digest", referrersBad},
		{"Listing Referrers", "MUST", "descriptors with artifactType and annotations", referrersList},
		{"Listing Referrers", "MUST", "a Link when it is not all", referrersPages},
		{"Listing Referrers", "SHOULD", "filter by artifactType, MUST say OCI-Filters-Applied", referrersFilter},

		{"Deleting tags", "MUST", "202, and then 404", deleteTag},
		{"Deleting Manifests", "MUST", "202, and then 404 by digest and tag; 404 without the repository", deleteManifest},
		{"Deleting Blobs", "MUST", "202, and then 404", deleteBlob},

		{"Registry Proxying", "MAY", "ns is ignored", namespaceQuery},
		{"Enabling the Referrers API", "MUST", "every manifest pushed with a subject is listed", referrersAll},
		{"Determining Support", "", "GET of /v2/ answers 200", support},
		{"Error Codes", "MUST", "the document of an error, with a code of the table", errorDocuments},
		{"API", "SHOULD", "RFC 9110: methods, conditions", httpSemantics},
	}
}

// The requirements that need a registry in a special state have tests of their
// own:
//
//	Cancel a blob upload   SHOULD    unfinished uploads time out          depottest: UploadsExpire
//	Error Codes            SHOULD    429 has a Retry-After                TestTooManyRequests
//	Warnings               MUST      warn-code, warn-agent, no date       TestWarning
//	Warnings               MUST NOT  more than 4096 bytes of them         TestWarning
//	Content Management     MUST      400 or 405 where deletion is off     TestReadOnly

// What a person would lose: a client written to the specification that does not
// work with this registry.
func TestConformance(t *testing.T) {
	s := registry(t, nil)
	for i, r := range requirements() {
		t.Run(r.section+"/"+r.word+" "+r.text, func(t *testing.T) {
			p := &peer{base: s.URL, prefix: fmt.Sprintf("conformance/r%d", i)}
			if err := r.check(p); err != nil {
				t.Error(err)
			}
		})
	}
}

// Debian's registry is held against the same table, to see that the checks
// are of the specification and not of our server. It is older than version 1.1:
// what it does not do is told, not failed.
func TestConformanceOfDockerRegistry(t *testing.T) {
	base := dockerRegistry(t)
	met := 0
	for i, r := range requirements() {
		p := &peer{base: base, prefix: fmt.Sprintf("conformance/r%d", i)}
		if err := r.check(p); err != nil {
			t.Logf("%s: %s %s: %v", r.section, r.word, r.text, err)
			continue
		}
		met++
	}
	t.Logf("docker-registry meets %d of %d", met, len(requirements()))
	if met < 20 {
		t.Error("so few that the checks must be wrong")
	}
}

// dockerRegistry runs Debian's registry.
func dockerRegistry(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is not installed: apt-get install docker-registry")
	}
	// It does not say which port it was given, so it is given one.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: " + dir + "/data}\n  delete: {enabled: true}\nhttp: {addr: '" + address + "'}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	listening := make(chan bool, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "listening on") {
				listening <- true
			}
		}
		close(listening)
	}()
	if !<-listening {
		t.Fatal("docker-registry ended")
	}
	return "http://" + address
}

// peer is a registry that is asked, and repositories of its own for one check.
type peer struct {
	base   string
	prefix string
	n      int
}

// repository is a new one.
func (p *peer) repository() string {
	p.n++
	return fmt.Sprintf("%s/n%d", p.prefix, p.n)
}

// client never follows: an answer is what is looked at.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
