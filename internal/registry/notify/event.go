package notify

import (
	"crypto/rand"
	"encoding/json"
	"time"

	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// MediaType is that of an envelope.
const MediaType = "application/vnd.docker.distribution.events.v1+json"

// envelope is the body of a delivery. It holds one event: receivers were
// written for registries that never sent more.
type envelope struct {
	Events []json.RawMessage `json:"events"`
}

// event is an event as the Docker registry spells it.
type event struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Target    target    `json:"target"`
	Request   request   `json:"request"`
	Actor     actor     `json:"actor"`
	Source    source    `json:"source"`
}

type target struct {
	MediaType      string `json:"mediaType,omitempty"`
	Size           int64  `json:"size,omitempty"`
	Digest         string `json:"digest,omitempty"`
	Length         int64  `json:"length,omitempty"` // the old name of size
	Repository     string `json:"repository"`
	FromRepository string `json:"fromRepository,omitempty"`
	URL            string `json:"url,omitempty"`
	Tag            string `json:"tag,omitempty"`
}

type request struct {
	ID        string `json:"id"`
	Addr      string `json:"addr,omitempty"`
	Host      string `json:"host,omitempty"`
	Method    string `json:"method"`
	UserAgent string `json:"useragent"`
}

type actor struct {
	Name string `json:"name,omitempty"`
}

type source struct {
	Addr       string `json:"addr,omitempty"`
	InstanceID string `json:"instanceID,omitempty"`
}

func (n *Notifier) record(e serve.Event) event {
	t := target{
		MediaType: e.Descriptor.MediaType, Size: e.Descriptor.Size, Length: e.Descriptor.Size,
		Digest: e.Descriptor.Digest.String(), Repository: e.Repository, FromRepository: e.From, Tag: e.Tag,
	}
	if e.Action != serve.EventDelete && e.Host != "" {
		kind := "manifests"
		if isBlob(e) {
			kind = "blobs"
		}
		t.URL = e.Scheme + "://" + e.Host + "/v2/" + e.Repository + "/" + kind + "/" + t.Digest
	}
	return event{
		ID: rand.Text(), Timestamp: e.Time, Action: string(e.Action), Target: t,
		Request: request{ID: rand.Text(), Addr: e.Remote, Host: e.Host, Method: e.Method, UserAgent: e.Agent},
		Actor:   actor{e.User},
		Source:  source{n.opts.Source, n.instance},
	}
}

// isBlob tells the events of blobs, which have no media type of their own, from
// those of manifests.
func isBlob(e serve.Event) bool {
	return e.Action == serve.EventMount || e.Descriptor.MediaType == "application/octet-stream"
}
