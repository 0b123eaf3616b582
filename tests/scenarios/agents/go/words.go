package main

import (
	"fmt"
	"net/url"
	"strings"

	"coord"
)

// words is a command: its verb, and its named values.
type words struct {
	verb   string
	values map[string]string
}

func parse(line string) (words, error) {
	parts := strings.Fields(line)
	if len(parts) == 0 {
		return words{}, fmt.Errorf("the line is empty")
	}
	w := words{verb: parts[0], values: map[string]string{}}
	for _, part := range parts[1:] {
		name, value, _ := strings.Cut(part, "=")
		text, err := url.PathUnescape(value)
		if err != nil {
			return words{}, err
		}
		w.values[name] = text
	}
	return w, nil
}

// answer is a line to the conductor.
type answer struct{ strings.Builder }

func say(head string) *answer {
	a := &answer{}
	a.WriteString(head)
	return a
}

func (a *answer) with(name string, value any) *answer {
	fmt.Fprintf(a, " %s=", name)
	for _, b := range []byte(fmt.Sprint(value)) {
		if b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || strings.IndexByte("._-/:@,+", b) >= 0 {
			a.WriteByte(b)
		} else {
			fmt.Fprintf(a, "%%%02X", b)
		}
	}
	return a
}

func (a *answer) withHolder(h *coord.Holder) *answer {
	if h == nil {
		return a
	}
	return a.with("holder.name", h.Name).with("holder.session", h.Session).with("holder.pid", h.PID).
		with("holder.token", h.Token).with("holder.state", h.State).with("holder.is_self", h.Self)
}

// sayError is the answer for an error: of the library, or of this agent.
func sayError(err error) *answer {
	e, ok := asError(err)
	if !ok {
		return say("fail").with("message", err.Error())
	}
	a := say("error "+e.Code.String()).with("message", e.Error()).with("retryable", e.Retryable)
	if e.Loss != coord.LossNone {
		a.with("reason", e.Loss)
	}
	return a.withHolder(e.Holder)
}

func sayGranted(held *coord.Held) *answer {
	return say("ok").with("lock", held.Name()).with("token", held.Token())
}
