package impersonate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// Standing is what is known of the account's rights.
type Standing int

const (
	// Unknown: not asked yet, or the API server did not answer.
	Unknown Standing = iota
	// Proven: it can impersonate as the profile says and no wider.
	Proven
	// Unproven: the API server cannot list all rules, but each question that
	// could be asked singly was answered as it should be.
	Unproven
	// TooWide: it can impersonate beyond the profile.
	TooWide
)

func (s Standing) String() string {
	return [...]string{"unknown", "proven", "unproven", "too wide"}[s]
}

// Proof is one answer.
type Proof struct {
	Standing Standing
	// Detail says which rule or question decided, for the operator.
	Detail string
	// Missing is a right that the policies need and the account lacks.
	Missing string
}

// Prover asks the API server, in the account's own name, what the account may.
type Prover struct {
	// Client sends with the account's credential and no identity.
	Client http.RoundTripper
	Base   *url.URL
}

// reviewLimit bounds an answer, in bytes.
const reviewLimit = 8 << 20

// namespaces that are looked at beside the cluster-wide rules: rights in one
// namespace concern only the service accounts there, and these are the two
// where such an account would matter most.
var namespaces = []string{Namespace, metav1.NamespaceSystem}

// Prove asks once. An error means Unknown.
//
// The constrained profile rests on the absence of the legacy verb: the API
// server tries the constrained modes first and the legacy one last, so a single
// rule with "impersonate" or "*" makes all constraints void.
func (p *Prover) Prove(ctx context.Context, needs Needs, users []string) (Proof, error) {
	var actual []rbacv1.PolicyRule
	incomplete := ""
	for i, namespace := range namespaces {
		review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
		if err := p.ask(ctx, "selfsubjectrulesreviews", review); err != nil {
			return Proof{}, err
		}
		rules := asRules(review.Status)
		if wide := tooWide(needs.Profile, rules); wide != "" {
			return Proof{Standing: TooWide, Detail: wide}, nil
		}
		if review.Status.Incomplete {
			incomplete = "the API server lists rules incompletely"
			if review.Status.EvaluationError != "" {
				incomplete += ": " + review.Status.EvaluationError
			}
		}
		if i == 0 {
			actual = rules
		}
	}
	if incomplete == "" {
		return Proof{Standing: Proven, Missing: Missing(needs.Rules(), actual)}, nil
	}
	allowed, err := p.beyond(ctx, needs, users)
	if err != nil {
		return Proof{}, err
	}
	if allowed != "" {
		return Proof{Standing: TooWide, Detail: "may impersonate " + allowed}, nil
	}
	return Proof{Standing: Unproven, Detail: incomplete}, nil
}

func tooWide(profile v1alpha1.ImpersonationProfile, rules []rbacv1.PolicyRule) string {
	for _, rule := range rules {
		switch {
		case slices.Contains(rule.Verbs, "*"):
			return `a rule has the verb "*"`
		case !slices.Contains(rule.Verbs, legacyVerb):
		case profile != v1alpha1.ImpersonationLegacy:
			return `a rule has the verb "impersonate"`
		case slices.Contains(rule.Resources, "serviceaccounts"):
			return "a rule lets it impersonate service accounts"
		default:
			if wide := tooWideGroups(rule); wide != "" {
				return wide
			}
		}
		if wide := tooWideMode(rule); wide != "" {
			return wide
		}
	}
	return ""
}

// tooWideGroups: zt sends its own roles as groups and nothing else, so that any
// other name could only serve somebody who got hold of the account.
func tooWideGroups(rule rbacv1.PolicyRule) string {
	if !slices.Contains(rule.Resources, "groups") && !slices.Contains(rule.Resources, "*") {
		return ""
	}
	if len(rule.ResourceNames) == 0 {
		return "a rule lets it impersonate every group"
	}
	for _, name := range rule.ResourceNames {
		if !strings.HasPrefix(name, GroupPrefix) {
			return fmt.Sprintf("a rule lets it impersonate the group %q, which is no role of zt's", name)
		}
	}
	return ""
}

// tooWideMode looks at the constrained modes (KEP-5284). Ours is user-info, with
// the groups named: a group without a name is every group, system:masters
// included, and the other modes make a node or a service account of a person.
func tooWideMode(rule rbacv1.PolicyRule) string {
	for _, verb := range rule.Verbs {
		switch {
		case !strings.HasPrefix(verb, "impersonate:"):
		case verb != identityVerb:
			return fmt.Sprintf("a rule has the verb %q", verb)
		default:
			if wide := tooWideGroups(rule); wide != "" {
				return wide
			}
		}
	}
	return ""
}

// beyond asks one by one for what a rule beyond the profile would most likely let
// in and names the first that is allowed.
func (p *Prover) beyond(ctx context.Context, needs Needs, users []string) (string, error) {
	const nobody = "zt-nobody-in-particular"
	type question struct{ verb, group, resource, name string }
	questions := []question{
		{legacyVerb, "", "groups", "system:masters"},
		{legacyVerb, "", "groups", nobody},
		{legacyVerb, "", "serviceaccounts", "default"},
		// A constrained rule for groups that names none.
		{identityVerb, "authentication.k8s.io", "groups", "system:masters"},
	}
	if needs.Profile != v1alpha1.ImpersonationLegacy {
		// There the legacy verb is for nobody at all.
		for _, group := range needs.groups() {
			questions = append(questions, question{legacyVerb, "", "groups", group})
		}
		for _, user := range slices.Concat([]string{"system:admin", nobody}, users) {
			questions = append(questions, question{legacyVerb, "", "users", user})
		}
	}
	for _, q := range questions {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: q.verb, Group: q.group, Resource: q.resource, Name: q.name},
		}}
		if q.resource == "serviceaccounts" {
			review.Spec.ResourceAttributes.Namespace = metav1.NamespaceSystem
		}
		if err := p.ask(ctx, "selfsubjectaccessreviews", review); err != nil {
			return "", err
		}
		if review.Status.Allowed {
			return q.resource + " " + q.name, nil
		}
	}
	return "", nil
}

func asRules(status authorizationv1.SubjectRulesReviewStatus) []rbacv1.PolicyRule {
	rules := make([]rbacv1.PolicyRule, 0, len(status.ResourceRules)+len(status.NonResourceRules))
	for _, r := range status.ResourceRules {
		rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	for _, r := range status.NonResourceRules {
		rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
	}
	return rules
}

// ask creates a review and reads the answer into it.
func (p *Prover) ask(ctx context.Context, resource string, review any) error {
	body, err := json.Marshal(review)
	if err != nil {
		return fmt.Errorf("ask %s: %w", resource, err)
	}
	address := p.Base.JoinPath("/apis/authorization.k8s.io/v1", resource)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask %s: %w", resource, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := p.Client.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", resource, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, reviewLimit))
	if err != nil {
		return fmt.Errorf("ask %s: %w", resource, err)
	}
	if response.StatusCode != http.StatusCreated && response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: the API server answered %d", resource, response.StatusCode)
	}
	if err := json.Unmarshal(answer, review); err != nil {
		return fmt.Errorf("ask %s: %w", resource, err)
	}
	return nil
}
