package idp

import (
	"crypto/subtle"
	"html/template"
	"net/http"
	"net/url"
	"time"
)

const pathCode = "/login/code"

// ticket is a person who has shown a password and is on the way to a
// destination: an authorisation request, or a device that waits.
type ticket struct {
	request  string // id of an authorisation request, or
	userCode string // the code of a device
	subject  string
	amr      []string
	complete bool // all factors shown
	tries    int
}

// maxTries is how often a second factor may be wrong.
const maxTries = 5

// newPages are what a person sees.
func (p *Provider) newPages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathLogin, p.showLogin)
	mux.HandleFunc("POST "+pathLogin, p.checkPassword)
	mux.HandleFunc("POST "+pathCode, p.checkCode)
	mux.HandleFunc("GET "+pathDevice, p.showDevice)
	mux.HandleFunc("POST "+pathDevice, p.checkUserCode)
	mux.HandleFunc("POST "+pathDeviceConfirm, p.confirmDevice)
	mux.HandleFunc("GET "+pathLoggedOut, func(w http.ResponseWriter, _ *http.Request) {
		show(w, http.StatusOK, page{Title: "Signed out", Message: "You are signed out."})
	})
	return mux
}

func (p *Provider) showLogin(w http.ResponseWriter, r *http.Request) {
	loginPage(w, http.StatusOK, r.FormValue("id"), "", "")
}

func loginPage(w http.ResponseWriter, status int, request, userCode, message string) {
	show(w, status, page{
		Title: "Sign in", Message: message, Action: pathLogin, Submit: "Sign in",
		Hidden: map[string]string{"id": request, "user_code": userCode},
		Fields: []field{{"username", "text", "User name", ""}, {"password", "password", "Password", ""}},
	})
}

func (p *Provider) checkPassword(w http.ResponseWriter, r *http.Request) {
	request, userCode := r.PostFormValue("id"), r.PostFormValue("user_code")
	u, ok := p.storage.user(r.PostFormValue("username"))
	if !ok || subtle.ConstantTimeCompare([]byte(u.Password), []byte(r.PostFormValue("password"))) != 1 {
		loginPage(w, http.StatusUnauthorized, request, userCode, "Wrong user name or password.")
		return
	}
	t := &ticket{request: request, userCode: userCode, subject: u.Subject, amr: []string{"pwd"}}
	id := randomID()
	p.mu.Lock()
	p.tickets[id] = t
	p.mu.Unlock()
	if p.opts.SecondFactor {
		codePage(w, http.StatusOK, id, "")
		return
	}
	p.arrive(w, r, id)
}

func codePage(w http.ResponseWriter, status int, id, message string) {
	show(w, status, page{
		Title: "Second factor", Message: message, Action: pathCode, Submit: "Continue",
		Hidden: map[string]string{"ticket": id},
		Fields: []field{{"code", "text", "One-time code", ""}},
	})
}

func (p *Provider) checkCode(w http.ResponseWriter, r *http.Request) {
	id := r.PostFormValue("ticket")
	p.mu.Lock()
	t, ok := p.tickets[id]
	if ok {
		t.tries++
		if t.tries > maxTries {
			delete(p.tickets, id)
			ok = false
		}
	}
	p.mu.Unlock()
	if !ok {
		show(w, http.StatusBadRequest, page{Title: "Sign in", Message: "This sign-in is over. Start again."})
		return
	}
	u, _ := p.storage.user(t.subject)
	if subtle.ConstantTimeCompare([]byte(u.Code), []byte(r.PostFormValue("code"))) != 1 {
		codePage(w, http.StatusUnauthorized, id, "Wrong code.")
		return
	}
	p.mu.Lock()
	t.amr = []string{"pwd", "otp", "mfa"} // RFC 8176
	p.mu.Unlock()
	p.arrive(w, r, id)
}

// arrive sends a person who has shown all factors to where he was going.
func (p *Provider) arrive(w http.ResponseWriter, r *http.Request, id string) {
	p.mu.Lock()
	t, ok := p.tickets[id]
	if !ok {
		p.mu.Unlock()
		show(w, http.StatusBadRequest, page{Title: "Sign in", Message: "This sign-in is over. Start again."})
		return
	}
	t.complete = true
	p.counters.Logins++
	if t.userCode == "" {
		delete(p.tickets, id)
	}
	reached := *t
	p.mu.Unlock()
	if reached.userCode != "" {
		show(w, http.StatusOK, page{
			Title:   "Connect a device",
			Message: "A device with the code " + reached.userCode + " wants to sign in as you. Do you have it in front of you?",
			Action:  pathDeviceConfirm, Submit: "Allow", Refuse: "Deny",
			Hidden: map[string]string{"ticket": id},
		})
		return
	}
	if err := p.storage.authenticated(reached.request, reached.subject, reached.amr, time.Now()); err != nil {
		show(w, http.StatusBadRequest, page{Title: "Sign in", Message: "This sign-in is over. Start again."})
		return
	}
	http.Redirect(w, r, pathAuthorizeBack+"?id="+url.QueryEscape(reached.request), http.StatusSeeOther)
}

// showDevice asks for the code. The code of verification_uri_complete is filled
// in but still has to be sent, signed in for and confirmed by the person.
func (p *Provider) showDevice(w http.ResponseWriter, r *http.Request) {
	devicePage(w, http.StatusOK, r.FormValue("user_code"), "")
}

func devicePage(w http.ResponseWriter, status int, userCode, message string) {
	show(w, status, page{
		Title: "Connect a device", Message: message, Action: pathDevice, Submit: "Continue",
		Fields: []field{{"user_code", "text", "Code", userCode}},
	})
}

func (p *Provider) checkUserCode(w http.ResponseWriter, r *http.Request) {
	d, ok := p.storage.pendingDevice(r.PostFormValue("user_code"), time.Now())
	if !ok {
		devicePage(w, http.StatusBadRequest, "", "This code is unknown, used or expired.")
		return
	}
	loginPage(w, http.StatusOK, "", d.userCode, "")
}

func (p *Provider) confirmDevice(w http.ResponseWriter, r *http.Request) {
	id := r.PostFormValue("ticket")
	p.mu.Lock()
	t, ok := p.tickets[id]
	ok = ok && t.complete && t.userCode != ""
	delete(p.tickets, id)
	p.mu.Unlock()
	if !ok {
		show(w, http.StatusBadRequest, page{Title: "Connect a device", Message: "This sign-in is over. Start again."})
		return
	}
	allow := r.PostFormValue("answer") == "Allow"
	if err := p.storage.decide(t.userCode, t.subject, t.amr, allow, time.Now()); err != nil {
		show(w, http.StatusBadRequest, page{Title: "Connect a device", Message: err.Error()})
		return
	}
	done := page{Title: "Device connected", Message: "You may close this page and return to the device."}
	if !allow {
		done = page{Title: "Device refused", Message: "The device was refused."}
	}
	show(w, http.StatusOK, done)
}

// page is one screen: a message and at most one form.
type page struct {
	Title, Message string
	Action         string // empty: no form
	Submit, Refuse string // labels, and the values of "answer"
	Hidden         map[string]string
	Fields         []field
}

type field struct{ Name, Type, Label, Value string }

func show(w http.ResponseWriter, status int, p page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_ = pageTemplate.Execute(w, p)
}

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>
body { font-family: sans-serif; max-width: 24em; margin: 3em auto; padding: 0 1em; }
label, input, button { display: block; width: 100%; box-sizing: border-box; margin: .4em 0; font: inherit; }
</style>
</head>
<body>
<h1>{{.Title}}</h1>
{{with .Message}}<p id="message">{{.}}</p>{{end}}
{{if .Action}}<form method="post" action="{{.Action}}">
{{range $name, $value := .Hidden}}{{with $value}}<input type="hidden" name="{{$name}}" value="{{.}}">
{{end}}{{end}}{{range .Fields}}<label for="{{.Name}}">{{.Label}}</label>
<input id="{{.Name}}" name="{{.Name}}" type="{{.Type}}" value="{{.Value}}" autocomplete="off" required>
{{end}}<button type="submit" name="answer" value="{{.Submit}}">{{.Submit}}</button>
{{with .Refuse}}<button type="submit" name="answer" value="{{.}}">{{.}}</button>
{{end}}</form>{{end}}
</body>
</html>
`))
