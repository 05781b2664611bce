package floor

import (
	"bufio"
	"net"
)

// serveAgent answers each line on the unix socket with the document.
func serveAgent(config Config) error {
	listener, err := net.Listen("unix", config.Socket)
	if err != nil {
		return err
	}
	go acceptEach(listener, func(conn net.Conn) {
		defer conn.Close()
		if _, err := bufio.NewReader(conn).ReadSlice('\n'); err == nil {
			_, _ = conn.Write(config.Document)
		}
	})
	return nil
}
