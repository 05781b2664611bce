package policy

import "strings"

// pattern is an anchored glob: "*" stands for any run of characters, also an
// empty one, and everything else for itself. So "prod-*" matches neither "prod"
// nor "xprod-1".
type pattern struct {
	// exact when there is no "*" in it.
	exact bool
	head  string   // before the first "*", or the whole text
	tail  string   // behind the last "*"
	inner []string // between them, in order
}

func compilePattern(text string) pattern {
	parts := strings.Split(text, "*")
	if len(parts) == 1 {
		return pattern{exact: true, head: text}
	}
	last := len(parts) - 1
	return pattern{head: parts[0], tail: parts[last], inner: parts[1:last]}
}

func (p *pattern) match(s string) bool {
	if p.exact {
		return s == p.head
	}
	if len(s) < len(p.head)+len(p.tail) || !strings.HasPrefix(s, p.head) || !strings.HasSuffix(s, p.tail) {
		return false
	}
	s = s[len(p.head) : len(s)-len(p.tail)]
	for _, part := range p.inner {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

// patterns is a list of which one must match. An empty list matches nothing;
// whether that means "any" is for the caller to say.
type patterns []pattern

func compilePatterns(texts []string) patterns {
	if len(texts) == 0 {
		return nil
	}
	ps := make(patterns, len(texts))
	for i, text := range texts {
		ps[i] = compilePattern(text)
	}
	return ps
}

func (ps patterns) match(s string) bool {
	for i := range ps {
		if ps[i].match(s) {
			return true
		}
	}
	return false
}

// resourcePattern is RESOURCE or RESOURCE/SUBRESOURCE. One without a slash
// covers no sub-resource: whoever may read pods may not for that exec into them.
type resourcePattern struct {
	resource, sub pattern
	hasSub        bool
}

func compileResource(text string) resourcePattern {
	resource, sub, hasSub := strings.Cut(text, "/")
	return resourcePattern{resource: compilePattern(resource), sub: compilePattern(sub), hasSub: hasSub}
}

func (p *resourcePattern) match(resource, sub string) bool {
	if p.hasSub != (sub != "") {
		return false
	}
	return p.resource.match(resource) && (sub == "" || p.sub.match(sub))
}
