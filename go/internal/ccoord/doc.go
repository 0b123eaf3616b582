// Package ccoord is the C interface as Go sees it: integers, strings and handles. It is the only package that imports
// "C", and no C type leaves it.
//
// A handle is a checked value and no address, so a stale one gives an error and never a crash. No function of this
// package waits: everything that takes time is started with a queue and a tag, and ends with one event.
//
// Lacks on purpose: contexts, goroutines, finalizers. Package coord has them.
package ccoord
