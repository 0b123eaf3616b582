//go:build !coord_gc

package ccoord

func stress() {}
