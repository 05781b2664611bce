// Command floor is any of the floors of package floor, as its standard input says:
// a program of its own, so that its memory holds nothing of the bench.
package main

import (
	"os"

	"github.com/kube-zt/zt/test/bench/floor"
)

func main() { os.Exit(floor.Main()) }
