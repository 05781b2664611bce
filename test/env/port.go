package env

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reservation holds a free loopback port for a program that will listen on it
// with SO_REUSEPORT. The socket is bound but never listens, so it gets no
// connection; it only keeps the kernel from giving the port to anyone else,
// before the program is up and while it is down.
type reservation struct {
	Port int
	fd   int
}

func reservePort() (*reservation, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	port, err := bindLoopback(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return &reservation{Port: port, fd: fd}, nil
}

func bindLoopback(fd int) (int, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return bound.(*unix.SockaddrInet4).Port, nil
}

func (r *reservation) release() { _ = unix.Close(r.fd) }
