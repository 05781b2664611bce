// Package transcript keeps what a program or a log writes, for a test that reads
// it meanwhile.
package transcript

import (
	"bytes"
	"sync"
)

// Buffer is an io.Writer; its zero value is empty. It may be used concurrently.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer and never fails.
func (t *Buffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

// String is all that was written so far.
func (t *Buffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
