package webui

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"html/template"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

func itoa(n int) string { return strconv.Itoa(n) }

// functions are those templates call.
func functions() template.FuncMap {
	return template.FuncMap{
		"asset":   asset,
		"ago":     func(t time.Time) string { return ago(time.Since(t)) },
		"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"day":     func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
		"size":    size,
		"count":   count,
		"plural":  plural,
		"short":   short,
		"initial": initial,
		"tint":    tint,
		"kind":    kind,
		"content": content,
		"command": command,
		"join":    func(list []string) string { return strings.Join(list, " ") },
		"add":     func(a, b int) int { return a + b },
		"add64":   func(n int) int64 { return int64(n) },
		"largest": largest,
		"pretty":  pretty,
	}
}

// asset is the address of a file below static. It changes with the content, so
// that no browser shows a page of today with the style of yesterday.
func asset(name string) (string, error) {
	data, err := files.ReadFile("static/" + name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return "/static/" + name + "?v=" + hex.EncodeToString(sum[:6]), nil
}

// size is a number of bytes as people read it: 4.83 MB.
func size(n int64) string {
	return units.CustomSize("%.3g %s", float64(max(n, 0)), 1000, []string{"B", "kB", "MB", "GB", "TB", "PB"})
}

func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return plural(int64(d/time.Minute), "minute") + " ago"
	case d < 24*time.Hour:
		return plural(int64(d/time.Hour), "hour") + " ago"
	case d < 30*24*time.Hour:
		return plural(int64(d/(24*time.Hour)), "day") + " ago"
	case d < 365*24*time.Hour:
		return plural(int64(d/(30*24*time.Hour)), "month") + " ago"
	}
	return plural(int64(d/(365*24*time.Hour)), "year") + " ago"
}

func plural(n int64, word string) string {
	switch {
	case n == 1:
		return "1 " + word
	case strings.HasSuffix(word, "ry"):
		word = strings.TrimSuffix(word, "y") + "ie"
	}
	return count(n) + " " + word + "s"
}

// count is a number people can read: 1.2K, 34M.
func count(n int64) string {
	switch {
	case n < 1000:
		return strconv.FormatInt(n, 10)
	case n < 1e6:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/1e3), ".0") + "K"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/1e6), ".0") + "M"
}

// short is a digest as people compare them.
func short(digest string) string {
	_, hex, ok := strings.Cut(digest, ":")
	if !ok {
		return digest
	}
	return hex[:min(len(hex), 12)]
}

func initial(name string) string {
	base := name[strings.LastIndexByte(name, '/')+1:]
	for _, r := range base {
		return strings.ToUpper(string(r))
	}
	return "?"
}

// tint is one of the colours of the style sheet, always the same for a name.
func tint(name string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return "tint" + itoa(int(h.Sum32()%8))
}

// kind says what a media type is in a word or two.
func kind(mediaType string) string {
	switch {
	case strings.HasSuffix(mediaType, "image.index.v1+json"), strings.HasSuffix(mediaType, "manifest.list.v2+json"):
		return "several platforms"
	case strings.HasSuffix(mediaType, "image.manifest.v1+json"):
		return "OCI image"
	case strings.HasSuffix(mediaType, "manifest.v2+json"):
		return "Docker image"
	}
	return mediaType
}

// content says what a layer's media type is, without what all of them begin with.
func content(mediaType string) string {
	for _, prefix := range []string{"application/vnd.oci.image.layer.v1.", "application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.diff."} {
		if rest, ok := strings.CutPrefix(mediaType, prefix); ok && rest != "" {
			return rest
		}
	}
	return mediaType
}

// command is a step of a history without what the builders wrap it in.
func command(text string) string {
	text = strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(text, "/bin/sh -c #(nop)"); ok {
		return strings.TrimSpace(rest)
	}
	if rest, ok := strings.CutPrefix(text, "/bin/sh -c "); ok {
		return "RUN " + rest
	}
	return strings.TrimSuffix(text, " # buildkit")
}

func largest(layers []layer) int64 {
	most := int64(1)
	for _, l := range layers {
		most = max(most, l.Size)
	}
	return most
}

// pretty names the platform, or what stands in its place.
func pretty(p platform) string {
	switch {
	case p.Attestation:
		return "attestation"
	case p.Platform == "":
		return "artifact"
	}
	return p.Platform
}
