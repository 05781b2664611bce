// Package store holds the gateway's objects in a directory of two halves.
// config/ belongs to people and is never written; state/ belongs to this
// process alone, behind an exclusive lock.
//
// From config/ a snapshot is taken only when two readings of the whole tree are
// equal, parsed strictly, validated, compiled, and put in place by one pointer;
// any fault keeps the old configuration whole (TestV200, TestV201). What must
// outlive the file that said it, revocations above all, is first written to
// state/; a fault elsewhere does not keep it out
// (TestRevocationsOfAFaultyConfigurationHold).
//
// state/ is one journal of checksummed records, each flushed to the disk before
// the call that made it returns, and a snapshot file that the journal continues.
// When that fails, what gives has not happened, and what takes away is in force
// until it can be written (TestFailingDisk).
// A record that a crash left half written is dropped; damage in the middle stops
// the start, because a revocation could be hidden in it.
package store
