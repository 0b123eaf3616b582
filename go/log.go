package coord

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"coord/internal/ccoord"
)

// LevelTrace is the level of the library's most detailed lines.
const LevelTrace = slog.LevelDebug - 4

// SetLogger sends the log of the library to a logger, up to the level that this has enabled now; nil ends that. There
// is one log for all clients of the process. It never contains secrets, and its wording may change.
//
// Lines are lost when the logger is much slower than they come, and cut after 8 KiB.
func SetLogger(logger *slog.Logger) error {
	logging.Lock()
	defer logging.Unlock()
	level := int32(0)
	if logger != nil {
		level = libraryLevel(logger)
	}
	if level == 0 {
		if failed := ccoord.LogOff(); failed != nil {
			return newError("end the log", failed)
		}
		return nil
	}
	// Keeps lines apart like datagrams, and ends like a stream.
	const kind = syscall.SOCK_SEQPACKET | syscall.SOCK_NONBLOCK | syscall.SOCK_CLOEXEC
	pair, err := syscall.Socketpair(syscall.AF_UNIX, kind, 0)
	if err != nil {
		return &Error{Code: ErrUnknown, Op: "set a logger", Message: "no socket pair: " + err.Error()}
	}
	lines := os.NewFile(uintptr(pair[0]), "coord log")
	if failed := ccoord.LogTo(level, pair[1]); failed != nil {
		_ = lines.Close()
		return newError("set a logger", failed)
	}
	go relay(lines, logger)
	return nil
}

// One change of the logger at a time.
var logging sync.Mutex

// relay hands lines to the logger until the library has closed its end.
func relay(lines *os.File, logger *slog.Logger) {
	defer lines.Close()
	buffer := make([]byte, 1<<14)
	for {
		length, err := lines.Read(buffer)
		if err != nil || length == 0 {
			return
		}
		target, message, _ := bytes.Cut(buffer[1:length], []byte{0})
		logger.Log(context.Background(), slogLevel(int32(buffer[0])), string(message), "target", string(target))
	}
}

func slogLevel(level int32) slog.Level {
	switch level {
	case ccoord.LogError:
		return slog.LevelError
	case ccoord.LogWarn:
		return slog.LevelWarn
	case ccoord.LogInfo:
		return slog.LevelInfo
	case ccoord.LogDebug:
		return slog.LevelDebug
	}
	return LevelTrace
}

// libraryLevel is the most detailed level that a logger wants, 0 if it wants none.
func libraryLevel(logger *slog.Logger) int32 {
	for level := int32(ccoord.LogTrace); level > 0; level-- {
		if logger.Enabled(context.Background(), slogLevel(level)) {
			return level
		}
	}
	return 0
}
