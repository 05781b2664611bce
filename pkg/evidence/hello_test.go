package evidence

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/trust"
)

// TestReadHello: what is read of a hello, whatever it comes in, and that nothing
// behind it is touched.
func TestReadHello(t *testing.T) {
	t.Parallel()
	config := trust.UpstreamClient(nil, name, "h2")
	want := hello(t, config)
	if want.ServerName != name {
		t.Errorf("server name %q", want.ServerName)
	}
	if diff := cmp.Diff([]tls.CurveID{tls.X25519MLKEM768, tls.X25519}, want.KeyShares); diff != "" {
		t.Errorf("key shares (-want +got):\n%s", diff)
	}
	if len(want.Raw) != len(want.Message)+recordHeaderSize || !bytes.HasSuffix(want.Raw, want.Message) {
		t.Error("raw is not the message in one record")
	}
	for name, stream := range map[string][]byte{
		"one record":           records(want.Message, 1<<14),
		"records of 3 bytes":   records(want.Message, 3),
		"records of 1000":      records(want.Message, 1000),
		"record of version 3":  append([]byte{22, 3, 3}, records(want.Message, 1<<14)[3:]...),
		"header cut in halves": append(records(want.Message[:2], 2), records(want.Message[2:], 1<<14)...),
	} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with the error": iotest.DataErrReader,
		} {
			source := bytes.NewReader(append(bytes.Clone(stream), "behind"...))
			got, err := ReadHello(wrap(source))
			if err != nil {
				t.Errorf("%s, %s: %v", name, how, err)
				continue
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, how, diff)
			}
			// DataErrReader itself reads ahead.
			if rest, _ := io.ReadAll(source); string(rest) != "behind" && how != "with the error" {
				t.Errorf("%s, %s: %q is left", name, how, rest)
			}
		}
	}
}

// TestReadHelloSize: 16 KiB and not a byte more.
func TestReadHelloSize(t *testing.T) {
	t.Parallel()
	padded := func(size int) []byte {
		h := hello(t, trust.UpstreamClient(nil, name))
		pad := size - len(h.Message) - 4
		extension := make([]byte, 4+pad)
		binary.BigEndian.PutUint16(extension, 21) // padding, RFC 7685
		binary.BigEndian.PutUint16(extension[2:], uint16(pad))
		return withExtension(h, extension).Message
	}
	if h, err := ReadHello(bytes.NewReader(records(padded(maxHello), 5000))); err != nil || h.ServerName != name {
		t.Errorf("%d bytes: %v", maxHello, err)
	}
	tooLong := records(padded(maxHello+1), 5000)
	source := bytes.NewReader(tooLong)
	if _, err := ReadHello(source); err == nil {
		t.Errorf("%d bytes were read", maxHello+1)
	}
	if read := len(tooLong) - source.Len(); read > 6000 {
		t.Errorf("%d bytes were read before the size was looked at", read)
	}
}

// TestReadHelloMalformed: one extension after the other, wrong in its own way.
func TestReadHelloMalformed(t *testing.T) {
	t.Parallel()
	good := hello(t, trust.UpstreamClient(nil, "127.0.0.1"))
	u16 := func(v ...uint16) (b []byte) {
		for _, v := range v {
			b = binary.BigEndian.AppendUint16(b, v)
		}
		return b
	}
	sni := func(data ...byte) []byte { return append(u16(0, uint16(len(data))), data...) }
	for name, extension := range map[string][]byte{
		"key share twice":           u16(51, 2, 0),
		"unknown extension twice":   u16(0xfafa, 0, 0xfafa, 0),
		"extension too long":        u16(0xfafa, 60000),
		"empty server name":         sni(0, 3, 0, 0, 0),
		"two server names":          sni(0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b'),
		"name of another kind":      sni(0, 4, 1, 0, 1, 'a'),
		"something after the names": sni(0, 4, 0, 0, 1, 'a', 0),
		"names cut":                 sni(0, 9, 0, 0, 1, 'a'),
	} {
		h := withExtension(good, extension)
		if got, err := ReadHello(bytes.NewReader(h.Raw)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if h, err := ReadHello(bytes.NewReader(withExtension(good, sni(0, 4, 0, 0, 1, 'a')).Raw)); err != nil || h.ServerName != "a" {
		t.Errorf("the test is void: %v, %v", h, err)
	}
	if _, err := ReadHello(bytes.NewReader(records(append(bytes.Clone(good.Message), 1, 0, 0, 0), 1<<14))); err == nil {
		t.Error("another message in the same record was overlooked")
	}
	whole := 0
	for n := range good.Message {
		cut := bytes.Clone(good.Message[:n])
		if n >= messageHeaderSize {
			binary.BigEndian.PutUint16(cut[2:], uint16(n-messageHeaderSize))
		}
		if _, err := ReadHello(bytes.NewReader(records(cut, 1<<14))); err == nil {
			whole++
		}
	}
	if whole != 1 { // the hello of old that ends before the extensions
		t.Errorf("%d hellos that were cut are taken for whole", whole)
	}
}

// TestPreface: what is written is read, and not a byte more.
func TestPreface(t *testing.T) {
	t.Parallel()
	for _, jws := range []string{"a", strings.Repeat("a", maxProof)} {
		var b bytes.Buffer
		if err := WritePreface(&b, jws); err != nil {
			t.Fatal(err)
		}
		b.WriteString("behind")
		got, err := ReadPreface(iotest.OneByteReader(&b))
		if got != jws || err != nil || b.String() != "behind" {
			t.Errorf("%d bytes: read %d, %v, %q is left", len(jws), len(got), err, b.String())
		}
	}
	for _, jws := range []string{"", strings.Repeat("a", maxProof+1)} {
		if err := WritePreface(io.Discard, jws); err == nil {
			t.Errorf("%d bytes were written", len(jws))
		}
	}
	for stream, want := range map[string]error{
		"":                     io.EOF,
		"ZTP":                  io.ErrUnexpectedEOF,
		"ZTP1\x00":             io.ErrUnexpectedEOF,
		"ZTP1\x00\x05abcd":     io.ErrUnexpectedEOF,
		"ZTP2\x00\x01a":        ErrNoPreface,
		"\x16\x03\x01\x00\x01": ErrNoPreface,
	} {
		if _, err := ReadPreface(strings.NewReader(stream)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", stream, err, want)
		}
	}
}

func FuzzReadPreface(f *testing.F) {
	f.Add([]byte("ZTP1\x00\x01a"))
	f.Add([]byte("ZTP1\x10\x01"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		source := bytes.NewReader(stream)
		jws, err := ReadPreface(source)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := WritePreface(&b, jws); err != nil || !bytes.Equal(b.Bytes(), stream[:len(stream)-source.Len()]) {
			t.Errorf("read %q of %q, %v", jws, stream, err)
		}
	})
}

// FuzzReadHello: no stream makes the reader panic or read beyond its limits, and
// where crypto/tls takes what we replay, it has read the same.
func FuzzReadHello(f *testing.F) {
	f.Add(hello(f, trust.UpstreamClient(nil, name, "h2")).Raw)
	f.Add(records(hello(f, trust.UpstreamClient(nil, "127.0.0.1", "h2")).Message, 100))
	f.Fuzz(func(t *testing.T, stream []byte) {
		h, err := ReadHello(bytes.NewReader(stream))
		if err != nil {
			return
		}
		if len(h.Message) > maxHello || len(h.Raw) > maxHello+recordHeaderSize {
			t.Errorf("%d bytes", len(h.Message))
		}
		again, err := ReadHello(bytes.NewReader(h.Raw))
		if err != nil || sha256.Sum256(again.Message) != sha256.Sum256(h.Message) {
			t.Errorf("the replay is another hello: %v", err)
		}
		conn := &replayConn{Conn: deafConn{}, read: h.Raw}
		config := trust.StreamServer(func(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if info.ServerName != h.ServerName {
				t.Errorf("server name %q, crypto/tls says %q", h.ServerName, info.ServerName)
			}
			return nil, errors.New("enough")
		}, nil)
		tls.Server(conn, config).HandshakeContext(t.Context())
	})
}

func FuzzVerifyProof(f *testing.F) {
	ca := newAuthority(f)
	l := newLaptop(f, ca)
	f.Add(l.prove(f, []byte("hello")))
	jws, _ := SignStatement(l.device, statementOf("n"))
	f.Add(jws)
	f.Fuzz(func(t *testing.T, jws string) {
		proof, err := VerifyProof(jws, ca.pool(), domain, l.chain[0].NotBefore)
		if err == nil && proof.Identity.Session == "" {
			t.Errorf("a proof of nobody: %+v", proof)
		}
	})
}

func FuzzVerifyStatement(f *testing.F) {
	jws, err := SignStatement(newKey(f), statementOf("n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(jws)
	f.Fuzz(func(t *testing.T, jws string) {
		if s, key, err := VerifyStatement(jws, domain); err == nil && (s.Audience != domain || key == nil) {
			t.Errorf("statement %+v by %v", s, key)
		}
	})
}
