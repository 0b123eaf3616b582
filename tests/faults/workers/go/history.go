package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// history is a file to which lines are appended, each by one write, so that a killed process leaves whole lines.
type history struct{ file *os.File }

func open(path string) (*history, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &history{file}, err
}

func (h *history) note(t int64, event, name, rest string) {
	if _, err := fmt.Fprintf(h.file, `{"t":%d,"e":%q,"lock":%q,%s}`+"\n", t, event, name, rest); err != nil {
		panic(err)
	}
}

// now is the host's boot-time clock, in nanoseconds. The standard library has no name for it.
func now() int64 {
	const boottime = 7
	var time syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, boottime, uintptr(unsafe.Pointer(&time)), 0); errno != 0 {
		panic(errno)
	}
	return time.Nano()
}

// writeResource writes to what the lock protects: a file that its own lock guards, so it is right whatever ours does.
func (w *worker) writeResource(name string, token int64) {
	file, err := os.OpenFile(w.folder+"/"+name+".register", os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		panic(err)
	}
	// One that was stopped in the middle of a write must not stop the others.
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		file.Close()
		return
	}
	text, err := io.ReadAll(file)
	if err != nil {
		panic(err)
	}
	var highest int64
	if written := strings.Fields(string(text)); len(written) > 0 {
		if highest, err = strconv.ParseInt(written[len(written)-1], 10, 64); err != nil {
			panic(err)
		}
	}
	if token > highest {
		if _, err := fmt.Fprintf(file, "%d\n", token); err != nil {
			panic(err)
		}
	}
	file.Close()
	w.log.note(now(), "wrote", name, fmt.Sprintf(`"token":%d,"accepted":%t`, token, token >= highest))
}
