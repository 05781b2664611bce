package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/test/bench/floor"
	"github.com/kube-zt/zt/test/bench/proc"
	"github.com/kube-zt/zt/test/bench/report"
	"github.com/kube-zt/zt/test/env"
)

// page begins the Markdown form.
//
//go:embed page.md
var page string

// namespace of everything that is measured.
const namespace = "bench"

// tokenLife of the floors' tokens: longer than any run.
const tokenLife = 6 * time.Hour

// loadGroup may do everything: RBAC is asked, and says yes, on every way.
const loadGroup = "bench:load"

type options struct {
	quick   bool
	rounds  int
	ways    []string // nil: all
	floors  bool
	output  string
	profile string
}

// bench is one run. What sections share is started when the first one asks.
type bench struct {
	options options
	out     io.Writer // the report
	log     io.Writer // what goes on
	report  *report.Report
	dir     string // temporary
	built   bool   // the small programs are there

	cp       *env.ControlPlane
	server   int    // process id of the API server
	pods     int    // how many were created
	account  string // token of the floors' account
	keys     floor.Keys
	floors   map[floor.Kind]*floor.Process
	zt       *zt
	profiler *profiler // nil without -profile
	closings []func()
}

func newBench(o options, out, log io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp("", "zt-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{
		options: o, out: out, log: log, report: &report.Report{}, dir: dir,
		floors: make(map[floor.Kind]*floor.Process),
	}
	b.atEnd(func() { _ = os.RemoveAll(dir) })
	if b.keys, err = floor.NewKeys(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) atEnd(f func()) { b.closings = append(b.closings, f) }

// close ends what was started, the last first.
func (b *bench) close() {
	for i := len(b.closings) - 1; i >= 0; i-- {
		b.closings[i]()
	}
	b.closings = nil
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, "bench: "+format+"\n", args...) }

// pick returns the full value, or the quick one.
func pick[T any](b *bench, full, quick T) T {
	if b.options.quick {
		return quick
	}
	return full
}

// wanted leaves those of names that -ways names.
func (b *bench) wanted(names []string) []string {
	if b.options.ways == nil {
		return names
	}
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(b.options.ways, name) })
}

// count of rounds: as usual, one in the quick form, or as many as -rounds says.
func (b *bench) count(usual int) int {
	if b.options.rounds > 0 {
		return b.options.rounds
	}
	return pick(b, usual, 1)
}

// describe says where and how the figures came about.
func (b *bench) describe(args []string) {
	command := "go run ./test/bench"
	for _, a := range args {
		command += " " + a
	}
	b.report.AddFact("made by", "`%s` on %s", command, time.Now().UTC().Format(time.DateOnly))
	b.report.AddFact("machine", "%d × %s, %s/%s, %s; client, gateway, agent, kube-apiserver and etcd share it, all on loopback",
		runtime.NumCPU(), processor(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		b.report.AddFact("load of the machine before", "%s (where it is not near 0, others worked beside: believe CPU, not time)", strings.Fields(string(load))[0])
	}
	if b.options.quick {
		b.report.AddFact("quick", "one short round of everything: the figures mean little")
	}
}

func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		_, rest, _ := strings.Cut(string(info), "model name")
		line, _, _ := strings.Cut(rest, "\n")
		if name := strings.Trim(line, "\t :"); name != "" {
			return name
		}
	}
	return "unknown processor"
}

// add puts a finished section into the report, and shows it at once.
func (b *bench) add(s *report.Section) error {
	b.report.Sections = append(b.report.Sections, s)
	if b.options.output == "text" {
		return s.WriteText(b.out)
	}
	return s.WriteText(b.log)
}

// finish writes the report. As text, the sections stand there already.
func (b *bench) finish() error {
	if b.options.output == "markdown" {
		if _, err := io.WriteString(b.out, page+"\n"); err != nil {
			return err
		}
		return b.report.Markdown(b.out)
	}
	summary := report.Report{Facts: b.report.Facts}
	if err := errors.Join(writeLine(b.out), summary.Text(b.out)); err != nil {
		return err
	}
	missed := b.report.Missed()
	if len(missed) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(b.out, "%d figures miss their target: %s\n", len(missed), names(missed))
	return err
}

func writeLine(w io.Writer) error {
	_, err := fmt.Fprintln(w)
	return err
}

func names(figures []report.Figure) string {
	var all []string
	for _, f := range figures {
		all = append(all, f.Name)
	}
	return strings.Join(all, "; ")
}

// controlPlane starts the control plane with one pod to get.
func (b *bench) controlPlane(ctx context.Context) (*env.ControlPlane, error) {
	if b.cp != nil {
		return b.cp, nil
	}
	cp, err := env.Start(ctx, env.Options{
		Dir: filepath.Join(b.dir, "cluster"), ControllerManager: true, StreamNode: true, Kwok: true,
	})
	if err != nil {
		return nil, err
	}
	b.atEnd(func() { _ = cp.Stop() })
	b.cp = cp
	_, port, _ := strings.Cut(strings.TrimPrefix(cp.URL, "https://"), ":")
	if b.server, err = proc.Find("kube-apiserver", "--secure-port="+port); err != nil {
		return nil, err
	}
	if err := cp.Apply(ctx, rights); err != nil {
		return nil, err
	}
	if b.account, err = cp.ServiceAccountToken(ctx, namespace, "floor", 3*time.Hour); err != nil {
		return nil, err
	}
	if version, err := cp.Client().Discovery().ServerVersion(); err == nil {
		b.report.AddFact("kube-apiserver", "%s", version.GitVersion)
	}
	return cp, b.createPods(ctx, 1)
}

// rights of the floors' account and of whoever makes the requests.
const rights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bench-floor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
- {kind: ServiceAccount, namespace: bench, name: floor}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bench-load}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: bench:load}
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: zt:bench}
`

// pod is the one that is got.
const pod = "pod-00000"

// createPods makes sure that there are at least n pods, pod among them.
func (b *bench) createPods(ctx context.Context, n int) error {
	if b.pods >= n {
		return nil
	}
	if b.pods > 0 { // CreatePods makes all or none
		pods := b.cp.Client().CoreV1().Pods(namespace)
		now := int64(0)
		err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{FieldSelector: "spec.nodeName=" + env.KwokNode})
		if err != nil {
			return err
		}
		if err := b.await(ctx, func() (bool, error) {
			left, err := pods.List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + env.KwokNode})
			return err == nil && len(left.Items) == 0, err
		}); err != nil {
			return err
		}
	}
	b.pods = n
	return b.cp.CreatePods(ctx, namespace, n)
}

// await polls until done says so, for at most a minute.
func (b *bench) await(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// configMap is a small object to change.
func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
