// A reconciler that keeps the last state which it has seen of each key: what every change must have come to.
//
//	worker URL TABLE [NAME=VALUE ...]
//
// The words, the commands and the file are those of worker.py beside it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord"
)

const closeBound = 20 * time.Second

// seen is the last state of each key, as text.
type seen struct {
	mu     sync.Mutex
	states map[string]string
	tokens map[string]int64
}

// call is called for every key that changes.
func (s *seen) call(_ context.Context, work *coord.Work) (coord.Outcome, error) {
	key, err := keyText(work.Key())
	if err != nil {
		return nil, err
	}
	state, err := documentText(work.Document())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if token := work.Token(); token < s.tokens[key] {
		// An error would only be one of the run.
		fmt.Fprintf(os.Stderr, "the key %s was run with token %d after %d\n", key, token, s.tokens[key])
		os.Exit(3)
	}
	s.tokens[key] = work.Token()
	if work.Exists() {
		s.states[key] = state
	} else {
		delete(s.states, key)
	}
	return nil, nil
}

// dump writes all of it, at once or not at all.
func (s *seen) dump(path string) (int, error) {
	s.mu.Lock()
	lines := make([]string, 0, len(s.states))
	keys := make([]string, 0, len(s.states))
	for key := range s.states {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		lines = append(lines, fmt.Sprintf("{\"key\": %s, \"document\": %s}\n", key, s.states[key]))
	}
	s.mu.Unlock()
	if err := os.WriteFile(path+".new", []byte(strings.Join(lines, "")), 0o644); err != nil {
		return 0, err
	}
	return len(lines), os.Rename(path+".new", path)
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.states)
}

func documentText(document bson.Raw) (string, error) {
	if document == nil {
		return "", nil
	}
	text, err := bson.MarshalExtJSON(document, false, false)
	return string(text), err
}

func keyText(key any) (string, error) {
	text, err := bson.MarshalExtJSON(bson.D{{Key: "k", Value: key}}, false, false)
	return strings.TrimSuffix(strings.TrimPrefix(string(text), `{"k":`), "}"), err
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: worker URL TABLE [NAME=VALUE ...]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run(url, table string, settings []string) error {
	name, options, err := read(settings)
	if err != nil {
		return err
	}
	ctx := context.Background()
	client, err := coord.Connect(ctx, url, coord.WithName(fmt.Sprintf("worker-%d", os.Getpid())))
	if err != nil {
		return err
	}
	s := &seen{states: map[string]string{}, tokens: map[string]int64{}}
	reconciler, err := client.Reconcile(ctx, name, coord.SourceTable(table, nil), s.call, options...)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	failed := obey(s, reconciler)
	soon, cancel := context.WithTimeout(ctx, closeBound)
	defer cancel()
	if err := errors.Join(failed, reconciler.Close(soon), client.Close(soon)); err != nil {
		return err
	}
	fmt.Println("ended")
	return nil
}

// read takes the settings apart.
func read(settings []string) (name string, options []coord.ReconcileOption, err error) {
	name = "last-states"
	options = append(options, coord.Workers(4))
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		number, failed := strconv.Atoi(value)
		switch key {
		case "name":
			name, failed = value, nil
		case "mode":
			options, failed = append(options, coord.InMode(coord.Mode(value))), nil
		case "shards":
			options = append(options, coord.Shards(number))
		case "workers":
			options[0] = coord.Workers(number)
		default:
			failed = fmt.Errorf("there is no setting '%s'", key)
		}
		err = errors.Join(err, failed)
	}
	return name, options, err
}

func obey(s *seen, reconciler *coord.Reconciler) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, path, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "dump":
			count, err := s.dump(path)
			if err != nil {
				return err
			}
			fmt.Println("dumped", count)
		case "stats":
			text, err := statsText(s, reconciler)
			if err != nil {
				return err
			}
			fmt.Println(text)
		case "end":
			return nil
		default:
			return fmt.Errorf("there is no command '%s'", command)
		}
	}
	return lines.Err()
}

func statsText(s *seen, reconciler *coord.Reconciler) (string, error) {
	stats, err := reconciler.Stats()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{
		"ready": stats.Ready, "delayed": stats.Delayed, "in_flight": stats.InFlight, "parked": stats.Parked,
		"runs": stats.Runs, "errors": stats.Errors, "retries": stats.Retries, "terminal": stats.Terminal,
		"requeued": stats.Requeued, "fenced": stats.Fenced, "dropped": stats.Dropped, "synced": stats.Synced,
		"paused": stats.Paused, "shards": stats.Shards, "keys": s.count(),
	})
	return string(text), err
}
