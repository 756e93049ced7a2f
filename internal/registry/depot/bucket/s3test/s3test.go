// Package s3test is a small S3-compatible server for tests.
package s3test

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is a small S3-compatible server: objects with ranges, copies, listings in
// order, multipart uploads whose parts but the last have a least size, as the
// S3 API reference describes them. It verifies that requests are signed, not
// the signatures.
type Server struct {
	least int // bytes of a part

	Mu      sync.Mutex         // guards what follows
	Objects map[string]*object // by key
	Uploads map[string]*upload // by ID
	n       int
	Copied  int  // parts that were copies
	Broken  bool // answers 503
	Full    bool // answers XMinioStorageFull to what stores
	Denied  bool // answers AccessDenied to what stores or deletes
	// Conditions says what becomes of If-Match and If-None-Match of a PUT:
	// they are honoured, "ignored", or "refused" with 501.
	Conditions string
}

type object struct {
	data []byte
	time time.Time
}

type upload struct {
	key   string
	parts map[int][]byte
}

// New returns a server whose parts have at least so many bytes.
func New(least int) *Server {
	return &Server{least: least, Objects: map[string]*object{}, Uploads: map[string]*upload{}}
}

func etag(data []byte) string {
	sum := md5.Sum(data)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, code)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	auth := r.Header.Get("Authorization")
	if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=key/") || !strings.Contains(auth, "Signature=") ||
		r.Header.Get("X-Amz-Date") == "" || r.Header.Get("X-Amz-Content-Sha256") == "" {
		refuse(w, 403, "AccessDenied")
		return
	}
	body, err := payload(r)
	if err != nil {
		refuse(w, 400, "IncompleteBody")
		return
	}
	s.Mu.Lock()
	defer s.Mu.Unlock()
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	switch {
	case s.Broken:
		refuse(w, 503, "SlowDown")
	case s.Full && (r.Method == "PUT" || r.Method == "POST"):
		refuse(w, 507, "XMinioStorageFull")
	case s.Denied && r.Method != "GET" && r.Method != "HEAD":
		refuse(w, 403, "AccessDenied")
	case bucket != "depot":
		refuse(w, 404, "NoSuchBucket")
	case key == "":
		s.bucket(w, r, q)
	case q.Has("uploadId") || q.Has("uploads"):
		s.multipart(w, r, key, q, body)
	default:
		s.object(w, r, key, body)
	}
}

// payload reads a body, in the chunks of a streamed signature when there is one.
func payload(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	in := bufio.NewReader(r.Body)
	var data []byte
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil {
			return nil, err
		}
		chunk := make([]byte, n+2)
		if n == 0 {
			_, err = io.ReadAll(in)
			return data, err
		}
		if _, err := io.ReadFull(in, chunk); err != nil {
			return nil, err
		}
		data = append(data, chunk[:n]...)
	}
}

func (s *Server) bucket(w http.ResponseWriter, r *http.Request, q url.Values) {
	if q.Get("list-type") != "2" {
		if q.Has("location") {
			io.WriteString(w, `<LocationConstraint></LocationConstraint>`)
		}
		return
	}
	prefix, after := q.Get("prefix"), max(q.Get("start-after"), q.Get("continuation-token"))
	most, err := strconv.Atoi(q.Get("max-keys"))
	if err != nil || most <= 0 || most > 1000 {
		most = 1000
	}
	type content struct {
		Key          string
		LastModified time.Time
		Size         int
		ETag         string
	}
	var result struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string
		Contents              []content
	}
	var keys []string
	for key := range s.Objects {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if len(keys) > most {
		keys = keys[:most]
		result.IsTruncated, result.NextContinuationToken = true, keys[most-1]
	}
	for _, key := range keys {
		o := s.Objects[key]
		result.Contents = append(result.Contents, content{key, o.time.UTC(), len(o.data), etag(o.data)})
	}
	xml.NewEncoder(w).Encode(result)
}

func (s *Server) store(key string, data []byte) {
	s.Objects[key] = &object{data, time.Now()}
}

// source is what a request copies.
func (s *Server) source(r *http.Request) (o *object, copied bool) {
	from, err := url.PathUnescape(r.Header.Get("X-Amz-Copy-Source"))
	if from == "" || err != nil {
		return nil, false
	}
	return s.Objects[strings.TrimPrefix(strings.TrimPrefix(from, "/"), "depot/")], true
}

func (s *Server) object(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	o := s.Objects[key]
	switch r.Method {
	case "PUT":
		if source, copied := s.source(r); copied {
			if source == nil {
				refuse(w, 404, "NoSuchKey")
				return
			}
			s.store(key, source.data)
			fmt.Fprintf(w, "<CopyObjectResult><ETag>%s</ETag><LastModified>%s</LastModified></CopyObjectResult>", etag(source.data), time.Now().UTC().Format(time.RFC3339))
			return
		}
		if status, code := s.condition(r, o); code != "" {
			refuse(w, status, code)
			return
		}
		s.store(key, body)
		w.Header().Set("ETag", etag(body))
	case "DELETE":
		delete(s.Objects, key)
		w.WriteHeader(204)
	case "GET", "HEAD":
		if o == nil {
			refuse(w, 404, "NoSuchKey")
			return
		}
		w.Header().Set("ETag", etag(o.data))
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", o.time, bytes.NewReader(o.data))
	}
}

// condition is why a PUT may not replace o, which may be nil.
func (s *Server) condition(r *http.Request, o *object) (status int, code string) {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case match == "" && none == "", s.Conditions == "ignored":
		return 0, ""
	case s.Conditions == "refused":
		return 501, "NotImplemented"
	case match != "" && o == nil:
		return 404, "NoSuchKey"
	case match != "" && match != etag(o.data), none == "*" && o != nil:
		return 412, "PreconditionFailed"
	}
	return 0, ""
}

func (s *Server) multipart(w http.ResponseWriter, r *http.Request, key string, q url.Values, body []byte) {
	if q.Has("uploads") {
		s.n++
		id := fmt.Sprint("upload", s.n)
		s.Uploads[id] = &upload{key, map[int][]byte{}}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><Bucket>depot</Bucket><Key>%s</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>", key, id)
		return
	}
	id := q.Get("uploadId")
	u := s.Uploads[id]
	if u == nil || u.key != key {
		refuse(w, 404, "NoSuchUpload")
		return
	}
	switch r.Method {
	case "PUT":
		n, _ := strconv.Atoi(q.Get("partNumber"))
		if source, copied := s.source(r); copied {
			var from, to int
			fmt.Sscanf(r.Header.Get("X-Amz-Copy-Source-Range"), "bytes=%d-%d", &from, &to)
			body = source.data[from : to+1]
			s.Copied++
			fmt.Fprintf(w, "<CopyPartResult><ETag>%s</ETag></CopyPartResult>", etag(body))
		}
		u.parts[n] = body
		w.Header().Set("ETag", etag(body))
	case "DELETE":
		delete(s.Uploads, id)
		w.WriteHeader(204)
	case "POST":
		s.complete(w, id, u, body)
	}
}

func (s *Server) complete(w http.ResponseWriter, id string, u *upload, body []byte) {
	var list struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	if err := xml.Unmarshal(body, &list); err != nil {
		refuse(w, 400, "MalformedXML")
		return
	}
	var data []byte
	for i, part := range list.Part {
		got := u.parts[part.PartNumber]
		switch {
		case part.PartNumber != i+1 || strings.Trim(part.ETag, `"`) != strings.Trim(etag(got), `"`):
			refuse(w, 400, "InvalidPart")
			return
		case len(got) < s.least && i+1 < len(list.Part):
			refuse(w, 400, "EntityTooSmall")
			return
		}
		data = append(data, got...)
	}
	s.store(u.key, data)
	delete(s.Uploads, id)
	fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>depot</Bucket><Key>%s</Key><ETag>%s</ETag></CompleteMultipartUploadResult>", u.key, etag(data))
}
