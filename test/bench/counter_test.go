package main

import (
	"net"
	"testing"
)

func TestCountConnections(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dial := func(n int) func() error {
		return func() error {
			for range n {
				conn, err := net.Dial("tcp", listener.Addr().String())
				if err != nil {
					return err
				}
				_, _ = conn.Read(make([]byte, 1)) // until the other end has closed
				conn.Close()
			}
			return nil
		}
	}
	for _, want := range []int{0, 1, 7} {
		if got, err := countConnections(port, dial(want)); err != nil || got != want {
			t.Errorf("got %d, %v, want %d", got, err, want)
		}
	}
}
