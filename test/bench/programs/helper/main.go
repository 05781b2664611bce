// Command helper is the least exec credential plugin: one line to the unix socket
// named by its argument, the answer to stdout.
package main

import (
	"io"
	"net"
	"os"
)

func main() {
	conn, err := net.Dial("unix", os.Args[1])
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	if _, err := conn.Write([]byte("credential\n")); err != nil {
		os.Exit(1)
	}
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		os.Exit(1)
	}
}
