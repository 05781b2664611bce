package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/test/bench/report"
	"github.com/kube-zt/zt/test/env"
)

// shell is the pod in which programs are run.
const shell = "shell"

// runStream sends the same bytes each way and compares every one: speed without
// that would be worth nothing.
func runStream(ctx context.Context, b *bench) error {
	seats, err := b.seats(ctx, near, direct, ztTunnel)
	if err != nil {
		return err
	}
	if err := b.startShell(ctx); err != nil {
		return err
	}
	content := make([]byte, pick(b, 64<<20, 4<<20))
	_, _ = rand.Read(content)
	file := filepath.Join(b.dir, "content")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	section := &report.Section{
		Title: fmt.Sprintf("%d MiB through stock kubectl", len(content)>>20),
		Note: "Random bytes, compared at the other end. Most of the time is kubectl's, the API server's and the node's; " +
			"different bytes would end the bench with an error.",
		Details: report.Table{Columns: []string{"", "MiB/s", "to direct"}},
	}
	s := samples{}
	kinds := []struct {
		name string
		move func(context.Context, *seat, string, []byte) error
	}{
		{"exec, download", execDownload}, {"exec, upload", execUpload}, {"port-forward, there and back", portForward},
	}
	for round := range b.count(3) {
		for i := range seats {
			at := seats[(i+round)%len(seats)]
			for _, kind := range kinds {
				start := time.Now()
				if err := kind.move(ctx, at, file, content); err != nil {
					return fmt.Errorf("%s: %s: %w", at.name, kind.name, err)
				}
				s.add(at.name, kind.name, mebibytes(int64(len(content)))/time.Since(start).Seconds())
			}
		}
	}
	for _, kind := range kinds {
		section.Figures = append(section.Figures, s.figure(kind.name+", byte-exact", "MiB/s", ztTunnel, direct, kind.name, report.Target{}))
		for _, at := range seats {
			section.Details.Add(at.name+": "+kind.name, s.median(at.name, kind.name), s.ratio(at.name, direct, kind.name))
		}
	}
	return b.add(section)
}

func (b *bench) startShell(ctx context.Context) error {
	pods := b.cp.Client().CoreV1().Pods(namespace)
	automount := false
	_, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: shell},
		Spec: corev1.PodSpec{
			NodeName: env.NodeName, AutomountServiceAccountToken: &automount,
			Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return b.await(ctx, func() (bool, error) {
		found, err := pods.Get(ctx, shell, metav1.GetOptions{})
		return err == nil && found.Status.Phase == corev1.PodRunning, err
	})
}

func execDownload(ctx context.Context, at *seat, file string, content []byte) error {
	var got, diag bytes.Buffer
	cmd := at.command(ctx, "", "exec", shell, "--", "cat", file)
	cmd.Stdout, cmd.Stderr = &got, &diag
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, diag.Bytes())
	}
	return same(got.Bytes(), content)
}

func execUpload(ctx context.Context, at *seat, file string, content []byte) error {
	var diag bytes.Buffer
	up := file + ".up"
	cmd := at.command(ctx, "", "exec", "-i", shell, "--", "sh", "-c", "cat >"+up)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(content), &diag, &diag
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, diag.Bytes())
	}
	got, err := os.ReadFile(up)
	if err != nil {
		return err
	}
	return same(got, content)
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) `)

// portForward sends everything to a server that sends everything back.
func portForward(ctx context.Context, at *seat, _ string, content []byte) error {
	server, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	})
	defer serving.Wait()
	defer server.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := at.command(ctx, "", "port-forward", "--address=127.0.0.1", "pod/"+shell, fmt.Sprintf(":%d", server.Addr().(*net.TCPAddr).Port))
	var diag bytes.Buffer
	cmd.Stderr = &diag
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	match := forwarding.FindStringSubmatch(line)
	if match == nil {
		return fmt.Errorf("kubectl said %q, %w: %s", line, err, diag.Bytes())
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", match[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	var sending sync.WaitGroup
	sending.Go(func() { _, _ = conn.Write(content) })
	got := make([]byte, len(content))
	_, err = io.ReadFull(conn, got)
	if err != nil {
		return err
	}
	sending.Wait()
	return same(got, content)
}

func same(got, want []byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d bytes came, %d were sent", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d of %d is another one", i, len(want))
		}
	}
	return nil
}
