//go:build coord_gc

package ccoord

import "runtime"

// stress collects garbage before each call: what C is given and nothing keeps alive is gone by then.
func stress() { runtime.GC() }
