// Package audit is the gateway's own log: one JSON line for every decision,
// and, for a request that can change something or that opens a stream, a line
// before it goes out and another when it has ended.
//
// What holds:
//
//   - A line is handed to the kernel by one write(2) before [Log.Intent]
//     returns. A process that is killed right after has lost no intent.
//   - When that write fails the caller must not go on: an intent that is not
//     written is an action that does not happen. Outcomes and refusals are
//     never held up by a failing log; they are counted instead.
//   - A line is whole or absent. What a full disk cut short is taken back, and
//     the log works again as soon as there is room, without a restart.
//   - No secret is ever a field. Paths are logged without their query, and
//     whatever a client chose is escaped by JSON, so that one record is one line.
//
// Joined by the decision id, which is also the Audit-ID that the cluster's own
// audit carries, intent, outcome and the cluster's record tell one story.
package audit
