package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kube-zt/zt/test/bench/floor"
	"github.com/kube-zt/zt/test/bench/report"
)

// Programs that are started and end.
const (
	empty        = "empty program"
	leastHelper  = "least helper"
	ztCredential = "zt credential"
)

func runCredential(ctx context.Context, b *bench) error {
	nothing, err := b.program(ctx, "empty")
	if err != nil {
		return err
	}
	helper, err := b.leastHelper(ctx)
	if err != nil {
		return err
	}
	commands := []timed{{name: empty, Args: []string{nothing}}, {name: leastHelper, Args: helper}}
	program, err := b.credential(ctx)
	if err != nil {
		return err
	}
	if program != nil {
		commands = append(commands, *program)
	}
	s := samples{}
	if err := b.timeRuns(ctx, s, pick(b, 300, 20), commands); err != nil {
		return err
	}
	section := &report.Section{
		Title: "kubectl-zt credential with a live agent",
		Note: "The whole life of the exec plugin's process, as kubectl starts it, CGO off, stripped. For comparison: kubelogin with a warm cache " +
			"takes 4.1 times the empty program (its own measurement; it is not available as a module).",
		Details: report.Table{Columns: []string{"", "wall ms", "p90 ms", "to empty", "resident MiB", "size MB"}},
	}
	size := make(map[string]float64)
	for _, c := range commands {
		info, err := os.Stat(c.Args[0])
		if err != nil {
			return err
		}
		size[c.name] = float64(info.Size()) / 1e6
		section.Details.Add(c.name, s.median(c.name, wall), quantile(s[c.name][wall], 0.9), s.ratio(c.name, empty, wall), s.median(c.name, resident), size[c.name])
	}
	section.Figures = []report.Figure{s.figure("credential: wall", "ms", ztCredential, empty, wall, report.AtMost(2.8))}
	if program != nil {
		section.Figures = append(section.Figures,
			report.Figure{Name: "credential: resident", Unit: "MiB", Value: s.median(ztCredential, resident), Target: report.AtMost(10)},
			report.Figure{Name: "kubectl-zt: size", Unit: "MB", Value: size[ztCredential], Target: report.AtMost(12)})
	}
	return b.add(section)
}

// leastHelper starts the agent of the least credential helper and returns the
// helper's command.
func (b *bench) leastHelper(ctx context.Context) ([]string, error) {
	helper, err := b.program(ctx, "helper")
	if err != nil {
		return nil, err
	}
	token, err := b.keys.Token("bench:floor", []string{loadGroup}, tokenLife)
	if err != nil {
		return nil, err
	}
	document := fmt.Sprintf(`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false},"status":{"token":%q}}`+"\n", token)
	socket := filepath.Join(b.dir, "agent.sock")
	if _, err := b.floor(ctx, floor.Config{Kind: floor.Agent, Socket: socket, Document: []byte(document)}); err != nil {
		return nil, err
	}
	return []string{helper, socket}, nil
}

// helperUser is the user of a kubeconfig that calls the least helper.
func helperUser(command []string) string {
	return fmt.Sprintf(`{exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: %q, args: [%q]}}`,
		command[0], strings.Join(command[1:], `", "`))
}
