package control

import "context"

// Drain ends event streams without a word, since nothing has happened to anybody's
// session, lets requests under way finish and closes every stream, at most until
// ctx ends. Nothing new is served from the call on. It must be called once at
// most; Run goes on.
func (c *Control) Drain(ctx context.Context) {
	close(c.draining)
	_ = c.server.Shutdown(ctx) // what is left when ctx ends goes with Run
}
