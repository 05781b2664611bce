package control

import (
	"hash/fnv"
	"sync"
)

// locks serialises what is done under one name. Two names may share a lock, so
// whoever holds one takes no other of the same locks.
type locks [1024]sync.Mutex

// lock returns when the name is ours, and how to give it back.
func (l *locks) lock(name string) (unlock func()) {
	h := fnv.New32a()
	h.Write([]byte(name))
	m := &l[h.Sum32()%uint32(len(l))]
	m.Lock()
	return m.Unlock
}
