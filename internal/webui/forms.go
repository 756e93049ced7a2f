package webui

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

const maxForm = 64 << 10

func (ui *UI) signInPage(w http.ResponseWriter, r *http.Request) {
	ui.showSignIn(w, r, http.StatusOK, "", "")
}

func (ui *UI) showSignIn(w http.ResponseWriter, r *http.Request, status int, user, message string) {
	ui.show(w, r, status, "sign-in.html", frame{Title: "Sign in", Page: map[string]string{
		"User": user, "Message": message, "Next": ours(r.FormValue("next")),
	}})
}

// ours is where to go next: only to a page of ours, wherever a link led from.
func ours(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\t\r\n") || u.Path == "/sign-in" {
		return "/"
	}
	return next
}

func (ui *UI) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	user := r.PostFormValue("username")
	body, err := json.Marshal(map[string]string{"username": user, "password": r.PostFormValue("password")})
	if err != nil {
		ui.problem(w, r, err)
		return
	}
	header, err := ui.ask(r, http.MethodPost, "/api/v1/session", body, &session{})
	if err != nil {
		e := asAPIError(err)
		w.Header()["Retry-After"] = header["Retry-After"]
		ui.showSignIn(w, r, e.status, user, sentence(e.message))
		return
	}
	w.Header()["Set-Cookie"] = header["Set-Cookie"]
	http.Redirect(w, r, ours(r.PostFormValue("next")), http.StatusSeeOther)
}

func (ui *UI) signOut(w http.ResponseWriter, r *http.Request) {
	header, err := ui.ask(r, http.MethodDelete, "/api/v1/session", nil, &session{})
	if err != nil {
		ui.problem(w, r, err)
		return
	}
	w.Header()["Set-Cookie"] = header["Set-Cookie"]
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// star is the form of the star button, for browsers without script.
func (ui *UI) star(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	name := r.PostFormValue("name")
	at := (&url.URL{Path: name}).EscapedPath()
	method := http.MethodPut
	if r.PostFormValue("give") == "no" {
		method = http.MethodDelete
	}
	header, err := ui.ask(r, method, "/api/v1/stars/"+at, nil, &repository{})
	if err != nil {
		if asAPIError(err).status == http.StatusUnauthorized {
			http.Redirect(w, r, "/sign-in?"+url.Values{"next": {"/r/" + name}}.Encode(), http.StatusSeeOther)
			return
		}
		ui.problem(w, r, err)
		return
	}
	w.Header()["Set-Cookie"] = header["Set-Cookie"]
	http.Redirect(w, r, (&url.URL{Path: "/r/" + name}).String(), http.StatusSeeOther)
}

// sentence gives a message of the API the form of one.
func sentence(message string) string {
	if message == "" {
		return ""
	}
	return strings.ToUpper(message[:1]) + message[1:] + "."
}
