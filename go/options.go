package coord

import (
	"log/slog"
	"strconv"
	"time"
)

// Option changes how a client is connected. What is set here wins over the URL.
type Option func(*settings)

type settings struct {
	options [][2]string
	logger  *slog.Logger
}

// WithName gives the client a name, which others see as the holder of its locks.
func WithName(name string) Option { return WithOption("name", name) }

// WithTTL sets how long others wait before they may declare this client dead. The default is 30 s on MongoDB and 10 s
// elsewhere.
func WithTTL(ttl time.Duration) Option {
	return WithOption("ttl", strconv.FormatFloat(ttl.Seconds(), 'f', -1, 64)+"s")
}

// WithLabel adds a label to the client; at most 32, of 256 bytes.
func WithLabel(key, value string) Option { return WithOption("label."+key, value) }

// WithNamespace sets the first part of names that are given without one.
func WithNamespace(namespace string) Option { return WithOption("namespace", namespace) }

// WithScope sets the second part of names that are given without one.
func WithScope(scope string) Option { return WithOption("scope", scope) }

// WithOption sets any option by its name, as in a URL but without the prefix "coord.": "stop_margin" to "500ms".
// Connect fails for one that there is not.
func WithOption(key, value string) Option {
	return func(s *settings) { s.options = append(s.options, [2]string{key, value}) }
}

// WithLogger sets where the client reports what was forgotten: a hold that was not released, a client that was not
// closed. The default is slog.Default. For the log of the library see [SetLogger].
func WithLogger(logger *slog.Logger) Option { return func(s *settings) { s.logger = logger } }
