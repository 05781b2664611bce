package node

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestContainerLog(t *testing.T) {
	t.Parallel()
	number := func(n int64) *int64 { return &n }
	stderr := corev1.LogStreamStderr
	for _, test := range []struct {
		name    string
		options corev1.PodLogOptions
		want    string
		err     error
	}{
		{name: "all", want: "one\ndiag\ntwo\nrest"},
		{name: "one stream", options: corev1.PodLogOptions{Stream: &stderr}, want: "diag\n"},
		{name: "tail", options: corev1.PodLogOptions{TailLines: number(2)}, want: "two\nrest"},
		{name: "tail of one stream", options: corev1.PodLogOptions{TailLines: number(1), Stream: &stderr}, want: "diag\n"},
		{name: "tail of nothing", options: corev1.PodLogOptions{TailLines: number(0)}},
		{name: "limit within a line", options: corev1.PodLogOptions{LimitBytes: number(6)}, want: "one\ndi", err: errLimit},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newContainerLog()
			l.write(corev1.LogStreamStdout, []byte("on"))
			l.write(corev1.LogStreamStdout, []byte("e\ntw"))
			l.write(corev1.LogStreamStderr, []byte("diag\n"))
			l.write(corev1.LogStreamStdout, []byte("o\nrest"))
			l.close()
			var got strings.Builder
			if err := l.show(t.Context(), &got, func() {}, test.options); !errors.Is(err, test.err) {
				t.Errorf("show: %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestContainerLogFollow sees lines arrive one by one, and both ways to the end.
func TestContainerLogFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newContainerLog()
		var closed, left bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() {
			ended <- l.show(t.Context(), &closed, func() {}, corev1.PodLogOptions{Follow: true})
		}()
		go func() { ended <- l.show(ctx, &left, func() {}, corev1.PodLogOptions{Follow: true}) }()
		l.write(corev1.LogStreamStdout, []byte("one\ntw"))
		synctest.Wait()
		if got := closed.String() + left.String(); got != "one\none\n" {
			t.Errorf("followed %q", got)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("left: %v", err)
		}
		l.write(corev1.LogStreamStdout, []byte("o\n"))
		l.close()
		if err := <-ended; err != nil {
			t.Errorf("closed: %v", err)
		}
		if closed.String() != "one\ntwo\n" || left.String() != "one\n" {
			t.Errorf("followed %q and %q", closed.String(), left.String())
		}
	})
}

// TestContainerLogLimit keeps the newest lines, and a follower that fell behind
// goes on with them.
func TestContainerLogLimit(t *testing.T) {
	t.Parallel()
	l := newContainerLog()
	line := bytes.Repeat([]byte("x"), 1<<20)
	line[len(line)-1] = '\n'
	for range logLimit>>20 + 3 {
		l.write(corev1.LogStreamStdout, line)
	}
	lines, next, more, _ := l.from(0)
	if len(lines) != logLimit>>20 || next != logLimit>>20+3 || !more || l.size != logLimit {
		t.Errorf("%d lines of %d bytes, next %d, more %t", len(lines), l.size, next, more)
	}
}
