// Package stack runs the whole of zt for tests, the demo and the bench: the two
// programs as they are shipped, built once per process, a gateway with its
// configuration in a directory, and laptops, each with a home of its own in
// which kubectl-zt and stock kubectl run as they do for a person.
//
//	s, err := stack.Start(ctx, stack.Options{ControlPlane: cp, IdP: provider})
//	laptop, err := s.Laptop("alice")
//	res := laptop.ZT(ctx, "connect", "prod")
//	res = laptop.Kubectl(ctx, "get", "pods")
//
// Nothing is shortened on the way: the gateway is a process of its own, the
// browser is a program that kubectl-zt finds in BROWSER, kubectl is stock. What a
// laptop started ends with it, also its agent.
package stack
