package idp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Tab is one page of a Chromium.
type Tab struct {
	devtools *devtools
	session  string
}

// Page is what a tab shows.
type Page struct {
	URL   string `json:"url"`
	Title string `json:"title"`
	Text  string `json:"text"`

	Fields []string `json:"fields"` // names of the inputs that a person sees
	Ready  bool     `json:"ready"`
	Fresh  bool     `json:"fresh"` // not submitted yet
}

// Open opens address in a new tab.
func (c *Chromium) Open(ctx context.Context, address string) (*Tab, error) {
	var target struct {
		TargetID string `json:"targetId"`
	}
	if err := c.devtools.call(ctx, "", "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return nil, err
	}
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	err := c.devtools.call(ctx, "", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	if err != nil {
		return nil, err
	}
	t := &Tab{devtools: c.devtools, session: attached.SessionID}
	var navigated struct {
		ErrorText string `json:"errorText"`
	}
	if err := t.call(ctx, "Page.navigate", map[string]any{"url": address}, &navigated); err != nil {
		return nil, err
	}
	if navigated.ErrorText != "" {
		return nil, fmt.Errorf("navigate: %s", navigated.ErrorText)
	}
	return t, nil
}

func (t *Tab) call(ctx context.Context, method string, params, result any) error {
	return t.devtools.call(ctx, t.session, method, params, result)
}

// Eval runs an expression in the page, waits for a promise, and decodes the value.
func (t *Tab) Eval(ctx context.Context, expression string, result any) error {
	var got struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	params := map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}
	if err := t.call(ctx, "Runtime.evaluate", params, &got); err != nil {
		return err
	}
	if got.Exception != nil {
		return errors.New("evaluate: " + got.Exception.Text)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(got.Result.Value, result)
}

const describe = `({
	url: location.href,
	title: document.title,
	text: document.body ? document.body.innerText : "",
	fields: Array.from(document.querySelectorAll("input:not([type=hidden])"), e => e.name),
	ready: document.readyState === "complete" && location.href !== "about:blank",
	fresh: !window.ztSubmitted,
})`

// Page waits until the tab shows a complete page that was not submitted yet.
func (t *Tab) Page(ctx context.Context) (Page, error) {
	var p Page
	err := poll(ctx, func() (bool, error) {
		p = Page{}
		// Between two pages there is nothing to evaluate in.
		if err := t.Eval(ctx, describe, &p); err != nil {
			return false, ctx.Err()
		}
		if strings.HasPrefix(p.URL, "chrome-error:") {
			return false, fmt.Errorf("the browser shows an error: %s", p.Text)
		}
		return p.Ready && p.Fresh, nil
	})
	return p, err
}

// submit types what is known into the fields and clicks the first button.
func (t *Tab) submit(ctx context.Context, p Page, known map[string]string) error {
	for _, name := range p.Fields {
		if err := t.Eval(ctx, fmt.Sprintf(`document.getElementsByName(%q)[0].select()`, name), nil); err != nil {
			return err
		}
		if err := t.call(ctx, "Input.insertText", map[string]any{"text": known[name]}, nil); err != nil {
			return err
		}
	}
	var at *struct{ X, Y float64 }
	const where = `(() => {
		const b = document.querySelector("button");
		if (!b) return null;
		window.ztSubmitted = true;
		const r = b.getBoundingClientRect();
		return {X: r.x + r.width / 2, Y: r.y + r.height / 2};
	})()`
	if err := t.Eval(ctx, where, &at); err != nil {
		return err
	}
	if at == nil {
		return fmt.Errorf("nothing to click: %s", p.Text)
	}
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		click := map[string]any{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}
		if err := t.call(ctx, "Input.dispatchMouseEvent", click, nil); err != nil {
			return err
		}
	}
	return nil
}
