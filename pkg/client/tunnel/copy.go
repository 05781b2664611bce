package tunnel

import (
	"io"
	"sync"
)

// buffers hold two TLS records. A connection keeps one for what comes down, so a
// hundred idle watches cost the agent three megabytes.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// copyBytes is io.Copy without its detours: neither side may take the whole copy
// over, because a stream's deadlines and a pooled buffer belong to us. It says
// which side failed; at a proper end of src neither did.
func copyBytes(dst io.Writer, src io.Reader) (srcErr, dstErr error) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := src.Read(*b)
		if n > 0 {
			if _, werr := dst.Write((*b)[:n]); werr != nil {
				return nil, werr
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}
