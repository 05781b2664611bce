package main

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
)

// countConnections runs f and returns how many connections to a loopback port it
// saw meanwhile, by the clients' ports in the kernel's table. It looks every
// millisecond: a connection that is not seen alive is usually still seen waiting
// for its end to be forgotten. Nothing stands in between, for kubectl-zt refuses
// to be spoken to through something that is not its own.
func countConnections(port string, f func() error) (int, error) {
	before, err := clientPorts(port)
	if err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	seen := make(map[string]bool)
	look := func() error {
		ports, err := clientPorts(port)
		for p := range ports {
			if !before[p] {
				seen[p] = true
			}
		}
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := look(); err != nil {
				return 0, errors.Join(err, <-ended)
			}
		case err := <-ended:
			err = errors.Join(err, look())
			return len(seen), err
		}
	}
}

// clientPorts are the other ends of all connections to a port on this machine.
func clientPorts(port string) (map[string]bool, error) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	suffix := strings.ToUpper(strconv.FormatUint(number|1<<16, 16))[1:] // four digits
	found := make(map[string]bool)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			continue
		}
		_, local, _ := strings.Cut(fields[1], ":")
		_, remote, _ := strings.Cut(fields[2], ":")
		switch {
		case remote == "0000": // a listener
		case remote == suffix:
			found[local] = true
		case local == suffix:
			found[remote] = true
		}
	}
	return found, nil
}
