package server

import (
	"net/http"
	"path"
	"strings"
)

// access is the rule for who may use a route.
type access uint8

const (
	accessAdmin access = iota // whoever reaches the listener, but no foreign web page
	accessOpen                // everybody: tells nothing and changes nothing
	accessDebug               // as admin, and only while the daemon runs with --debug
)

// body is what a route expects in the body of a request.
type body uint8

const (
	bodyNone body = iota // nothing, or parameters of a form
	bodyJSON             // a JSON document of bounded size
	bodyRaw              // a stream of any length
)

// route is one line of the API. The pattern may hold one {name}, which takes
// anything, slashes included, as names of images have them.
type route struct {
	method  string
	pattern string
	since   apiVersion // the version that brought it; older clients see no such page
	access  access
	body    body
	stream  bool // lasts until something happens: ends when the daemon stops
	handle  func(*Server, *response, *request) error
}

// routes is the whole of the API. The first line that matches wins.
func routes() []route {
	const get, head, post, put, del = http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete
	return []route{
		{method: get, pattern: "/_ping", access: accessOpen, handle: (*Server).ping},
		{method: head, pattern: "/_ping", access: accessOpen, handle: (*Server).ping},
		{method: http.MethodOptions, pattern: "/{name}", access: accessOpen, handle: (*Server).options},
		{method: get, pattern: "/version", handle: (*Server).getVersion},
		{method: get, pattern: "/info", handle: (*Server).getInfo},
		{method: get, pattern: "/events", stream: true, handle: (*Server).getEvents},
		{method: post, pattern: "/auth", body: bodyJSON, handle: (*Server).login},
		{method: get, pattern: "/distribution/{name}/json", since: 1_30, handle: (*Server).inspectDistribution},
		{method: post, pattern: "/system/collect", handle: (*Server).collectImages},
		{method: get, pattern: "/system/df", since: 1_25, handle: (*Server).getDiskUsage},

		{method: get, pattern: "/containers/json", handle: (*Server).listContainers},
		{method: post, pattern: "/containers/create", body: bodyJSON, handle: (*Server).createContainer},
		{method: post, pattern: "/containers/prune", since: 1_25, handle: (*Server).pruneContainers},
		{method: get, pattern: "/containers/{name}/json", handle: (*Server).inspectContainer},
		{method: get, pattern: "/containers/{name}/top", handle: (*Server).topContainer},
		{method: get, pattern: "/containers/{name}/logs", stream: true, handle: (*Server).containerLogs},
		{method: get, pattern: "/containers/{name}/changes", handle: (*Server).containerChanges},
		{method: get, pattern: "/containers/{name}/export", handle: (*Server).exportContainer},
		{method: get, pattern: "/containers/{name}/stats", stream: true, handle: (*Server).containerStats},
		{method: get, pattern: "/containers/{name}/attach/ws", handle: (*Server).attachContainerWS},
		{method: post, pattern: "/containers/{name}/attach", handle: (*Server).attachContainer},
		{method: post, pattern: "/containers/{name}/wait", stream: true, handle: (*Server).waitContainer},
		{method: post, pattern: "/containers/{name}/resize", handle: (*Server).resizeContainer},
		{method: post, pattern: "/containers/{name}/start", handle: (*Server).startContainer},
		{method: post, pattern: "/containers/{name}/stop", handle: (*Server).stopContainer},
		{method: post, pattern: "/containers/{name}/restart", handle: (*Server).restartContainer},
		{method: post, pattern: "/containers/{name}/kill", handle: (*Server).killContainer},
		{method: post, pattern: "/containers/{name}/pause", handle: (*Server).pauseContainer},
		{method: post, pattern: "/containers/{name}/unpause", handle: (*Server).unpauseContainer},
		{method: post, pattern: "/containers/{name}/rename", handle: (*Server).renameContainer},
		{method: post, pattern: "/containers/{name}/update", body: bodyJSON, handle: (*Server).updateContainer},
		{method: head, pattern: "/containers/{name}/archive", handle: (*Server).statArchive},
		{method: get, pattern: "/containers/{name}/archive", handle: (*Server).getArchive},
		{method: put, pattern: "/containers/{name}/archive", body: bodyRaw, handle: (*Server).putArchive},
		{method: post, pattern: "/containers/{name}/exec", body: bodyJSON, handle: (*Server).createExec},
		{method: del, pattern: "/containers/{name}", handle: (*Server).removeContainer},

		{method: post, pattern: "/commit", body: bodyJSON, handle: (*Server).commitContainer},

		{method: get, pattern: "/exec/{name}/json", handle: (*Server).inspectExec},
		{method: post, pattern: "/exec/{name}/start", body: bodyJSON, handle: (*Server).startExec},
		{method: post, pattern: "/exec/{name}/resize", handle: (*Server).resizeExec},

		{method: get, pattern: "/images/json", handle: (*Server).listImages},
		{method: get, pattern: "/images/diff", handle: (*Server).diffImages},
		{method: post, pattern: "/images/create", body: bodyRaw, handle: (*Server).createImage},
		{method: post, pattern: "/images/load", body: bodyRaw, handle: (*Server).loadImages},
		{method: post, pattern: "/images/prune", since: 1_25, handle: (*Server).pruneImages},
		{method: get, pattern: "/images/search", handle: (*Server).searchImages},
		{method: get, pattern: "/images/get", handle: (*Server).saveImages},
		{method: get, pattern: "/images/{name}/get", handle: (*Server).saveImages},
		{method: get, pattern: "/images/{name}/json", handle: (*Server).inspectImage},
		{method: get, pattern: "/images/{name}/history", handle: (*Server).imageHistory},
		{method: post, pattern: "/images/{name}/push", body: bodyRaw, handle: (*Server).pushImage},
		{method: post, pattern: "/images/{name}/tag", handle: (*Server).tagImage},
		{method: del, pattern: "/images/{name}", handle: (*Server).removeImage},

		{method: get, pattern: "/volumes", handle: (*Server).listVolumes},
		{method: post, pattern: "/volumes/create", body: bodyJSON, handle: (*Server).createVolume},
		{method: post, pattern: "/volumes/prune", since: 1_25, handle: (*Server).pruneVolumes},
		{method: get, pattern: "/volumes/{name}", handle: (*Server).inspectVolume},
		{method: del, pattern: "/volumes/{name}", handle: (*Server).removeVolume},

		{method: get, pattern: "/networks", handle: (*Server).listNetworks},
		{method: get, pattern: "/networks/", handle: (*Server).listNetworks},
		{method: post, pattern: "/networks/prune", since: 1_25, handle: (*Server).pruneNetworks},
		{method: get, pattern: "/networks/{name}", handle: (*Server).inspectNetwork},

		{method: post, pattern: "/networks/create", body: bodyRaw, handle: (*Server).noNetworks},
		{method: post, pattern: "/networks/{name}/connect", body: bodyRaw, handle: (*Server).noNetworks},
		{method: post, pattern: "/networks/{name}/disconnect", body: bodyRaw, handle: (*Server).noNetworks},
		{method: del, pattern: "/networks/{name}", handle: (*Server).removeNetwork},

		{method: post, pattern: "/build", body: bodyRaw, handle: (*Server).noBuilds},
		{method: post, pattern: "/build/prune", since: 1_31, handle: (*Server).pruneBuildCache},

		{method: get, pattern: "/plugins", since: 1_25, handle: (*Server).listPlugins},
		{method: get, pattern: "/swarm", handle: (*Server).noSwarm},
		{method: get, pattern: "/nodes", handle: (*Server).noSwarm},
		{method: get, pattern: "/services", handle: (*Server).noSwarm},
		{method: get, pattern: "/tasks", handle: (*Server).noSwarm},
		{method: get, pattern: "/secrets", since: 1_25, handle: (*Server).noSwarm},
		{method: get, pattern: "/configs", since: 1_30, handle: (*Server).noSwarm},

		{method: get, pattern: "/debug/vars", access: accessDebug, handle: (*Server).debugVars},
		{method: get, pattern: "/debug/pprof/{name}", access: accessDebug, handle: (*Server).debugProfile},
	}
}

// find returns the route for a path without its version, and what its {name}
// stands for.
func (s *Server) find(method, p string) (*route, string) {
	p = cleanPath(p)
	for i := range s.routes {
		rt := &s.routes[i]
		if rt.method != method {
			continue
		}
		if name, ok := match(rt.pattern, p); ok {
			return rt, name
		}
	}
	return nil, ""
}

func match(pattern, p string) (name string, ok bool) {
	before, after, wild := strings.Cut(pattern, "{name}")
	if !wild {
		return "", p == pattern
	}
	p, ok = strings.CutPrefix(p, before)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(p, after)
}

// cleanPath drops doubled slashes and dots, which old clients send before the
// name of a container, and keeps a slash at the end.
func cleanPath(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}
