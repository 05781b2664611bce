package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/kube-zt/zt/pkg/gateway/files"
)

// The journal is a line that names its format, then records:
//
//	length   uint32  of the payload, in bytes
//	sequence uint64  of the last operation in the payload
//	check    uint32  CRC-32C of the twelve bytes before
//	payload  length bytes
//	check    uint32  CRC-32C of the payload
//
// all little-endian. One record is written and flushed before the next begins,
// so a crash can leave at most one that is not whole, and it is the last. A
// broken record with a whole one behind it is therefore no torn tail but
// damage, and is never skipped.
const (
	journalName   = "journal"
	journalMagic  = "zt-journal 1\n"
	headerSize    = 16
	trailerSize   = 4
	longestRecord = 8 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged: a revocation could be hidden in what cannot be read.
var errDamaged = errors.New("damaged")

type record struct {
	sequence uint64
	payload  []byte
}

func (r record) encode() []byte {
	b := make([]byte, 0, headerSize+len(r.payload)+trailerSize)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.payload)))
	b = binary.LittleEndian.AppendUint64(b, r.sequence)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	b = append(b, r.payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(r.payload, castagnoli))
}

// decodeRecord reads the record at the start of b; ok is false when there is no
// whole one.
func decodeRecord(b []byte) (r record, size int, ok bool) {
	if len(b) < headerSize+trailerSize {
		return record{}, 0, false
	}
	length := binary.LittleEndian.Uint32(b)
	if binary.LittleEndian.Uint32(b[12:]) != crc32.Checksum(b[:12], castagnoli) || length > longestRecord {
		return record{}, 0, false
	}
	size = headerSize + int(length) + trailerSize
	if len(b) < size {
		return record{}, 0, false
	}
	payload := b[headerSize : size-trailerSize]
	if binary.LittleEndian.Uint32(b[size-trailerSize:]) != crc32.Checksum(payload, castagnoli) {
		return record{}, 0, false
	}
	return record{sequence: binary.LittleEndian.Uint64(b[4:]), payload: payload}, size, true
}

// parseJournal returns the whole records and how many bytes of data they and
// the first line take. What lies behind is a torn tail.
func parseJournal(data []byte) (records []record, whole int, err error) {
	if len(data) < len(journalMagic) && bytes.HasPrefix([]byte(journalMagic), data) {
		return nil, 0, nil // the crash came before the first line was whole
	}
	if !bytes.HasPrefix(data, []byte(journalMagic)) {
		return nil, 0, fmt.Errorf("%w: it does not begin with %q; it may be of a newer version", errDamaged, journalMagic)
	}
	whole = len(journalMagic)
	for whole < len(data) {
		r, size, ok := decodeRecord(data[whole:])
		if !ok {
			break
		}
		records = append(records, r)
		whole += size
	}
	for i := whole + 1; i+headerSize+trailerSize <= len(data); i++ {
		if _, _, ok := decodeRecord(data[i:]); ok {
			return nil, 0, fmt.Errorf("%w: the record at byte %d cannot be read, and there is a whole one behind it at byte %d", errDamaged, whole, i)
		}
	}
	return records, whole, nil
}

// file is what the journal needs of an *os.File.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

// journal is the open end of the file. It belongs to one goroutine at a time.
type journal struct {
	path string
	f    file
	size int64
	// broken: a write failed, so what the file ends with is not known. Only a
	// new file heals that.
	broken bool
}

// readJournal reads the journal in dir; a missing one is empty. torn is the
// number of bytes that a crash left behind the last whole record.
func readJournal(dir string) (records []record, whole int, torn int, err error) {
	path := filepath.Join(dir, journalName)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, 0, nil
	}
	if err != nil {
		return nil, 0, 0, err
	}
	records, whole, err = parseJournal(data)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	return records, whole, len(data) - whole, nil
}

// openJournal opens the journal in dir for appending behind its whole records.
func openJournal(dir string, whole int) (*journal, error) {
	path := filepath.Join(dir, journalName)
	if whole < len(journalMagic) {
		return newJournal(dir)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(int64(whole)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &journal{path: path, f: f, size: int64(whole)}, nil
}

// newJournal puts an empty journal in the place of what was there.
func newJournal(dir string) (*journal, error) {
	path := filepath.Join(dir, journalName)
	if err := writeFile(path, []byte(journalMagic)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	return &journal{path: path, f: f, size: int64(len(journalMagic))}, nil
}

// append writes one record and returns when it is on the disk.
func (j *journal) append(r record) error {
	if len(r.payload) > longestRecord {
		return fmt.Errorf("a record of %d bytes is too large", len(r.payload))
	}
	b := r.encode()
	if _, err := j.f.Write(b); err != nil {
		j.broken = true
		return fmt.Errorf("write journal: %w", err)
	}
	if err := j.f.Sync(); err != nil {
		// The kernel may have dropped the pages: nothing can be said of them.
		j.broken = true
		return fmt.Errorf("flush journal: %w", err)
	}
	j.size += int64(len(b))
	return nil
}

// writeFile replaces path by data, whole or not at all, also through a crash.
func writeFile(path string, data []byte) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return files.SyncDirectory(filepath.Dir(path))
}
