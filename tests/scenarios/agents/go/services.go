package main

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"coord"
)

func (a *agent) next(w words) (*answer, error) {
	ctx, cancel := bounded()
	defer cancel()
	if watch := a.watches[w.values["hold"]]; watch != nil {
		return watch.next(ctx, w.values["keep"] == "true")
	}
	feed := a.feeds[w.values["hold"]]
	if feed == nil {
		return nil, fmt.Errorf("'%s' has no events", w.values["hold"])
	}
	reply, err := feed(ctx)
	if err != nil {
		return nil, err
	}
	return reply, nil
}

func (a *agent) endOf(w words) error {
	name := w.values["hold"]
	if r := a.runners[name]; r != nil {
		_, err := a.withRunner(w, r)
		return err
	}
	if provider := a.providers[name]; provider != nil {
		ctx, cancel := bounded()
		defer cancel()
		return provider.Close(ctx)
	}
	if watch := a.watches[name]; watch != nil {
		watch.Close()
		return nil
	}
	end := a.closers[name]
	if end == nil {
		return fmt.Errorf("there is no '%s' to end", name)
	}
	end()
	return nil
}

func (a *agent) withOwners(ctx context.Context, w words, client *coord.Client) (*answer, error) {
	if w.verb == "watch_owners" {
		watch, err := client.WatchOwners(ctx)
		if err != nil {
			return nil, err
		}
		a.closers[w.values["as"]] = watch.Close
		a.feeds[w.values["as"]] = func(ctx context.Context) (*answer, error) {
			event, err := watch.Next(ctx)
			reply := say("ok").with("event", event.Change)
			if err == nil && event.Owner != nil {
				reply.with("name", event.Owner.Name).with("session", event.Owner.Session)
			}
			return reply, err
		}
		return nil, nil
	}
	owners, err := client.Owners(ctx)
	if err != nil {
		return nil, err
	}
	if w.verb == "owners" {
		names := make([]string, len(owners))
		for i, owner := range owners {
			names[i] = owner.Name
		}
		sort.Strings(names)
		return say("ok").with("owners", strings.Join(names, ",")).with("count", len(owners)), nil
	}
	session, err := client.Session()
	if err != nil {
		return nil, err
	}
	for _, owner := range owners {
		if owner.Session == w.values["session"] {
			return sayOwner(&owner).with("is_self", owner.Session == session.ID), nil
		}
	}
	return say("ok").with("exists", false), nil
}

func sayOwner(owner *coord.Owner) *answer {
	a := say("ok").with("exists", true).with("session", owner.Session).with("name", owner.Name).with("pid", owner.PID)
	for key, value := range owner.Labels {
		a.with("label."+key, value)
	}
	a.with("state", owner.State).with("holds", strings.Join(owner.Holds, ","))
	return a.with("provides", strings.Join(owner.Services, ","))
}

func (a *agent) withService(ctx context.Context, w words, client *coord.Client) (*answer, error) {
	name, service := w.values["as"], w.values["service"]
	if w.verb == "watch" {
		var options []coord.ObserveOption
		if text, ok := w.values["down_grace_ms"]; ok {
			ms, err := strconv.Atoi(text)
			if err != nil {
				return nil, err
			}
			options = append(options, coord.DownGrace(time.Duration(ms)*time.Millisecond))
		}
		observer, err := client.Observe(ctx, service, options...)
		if err != nil {
			return nil, err
		}
		a.observers[name], a.closers[name] = observer, observer.Close
		a.feeds[name] = func(ctx context.Context) (*answer, error) {
			event, err := observer.Next(ctx)
			return sayObserved(event), err
		}
		return nil, nil
	}
	options := []coord.ProvideOption{coord.Reregister(w.values["reregister"] != "false")}
	if id, ok := w.values["instance"]; ok {
		options = append(options, coord.InstanceID(id))
	}
	provider, err := client.Provide(ctx, service, w.values["metadata"], options...)
	if err != nil {
		return nil, err
	}
	a.providers[name] = provider
	a.feeds[name] = func(ctx context.Context) (*answer, error) {
		event, err := provider.Next(ctx)
		reply := say("ok").with("event", event.Change)
		if event.Loss != coord.LossNone {
			reply.with("reason", event.Loss)
		}
		return reply, err
	}
	return sayProvider(provider), nil
}

func withProvider(w words, provider *coord.Provider) (*answer, error) {
	ctx, cancel := bounded()
	defer cancel()
	switch w.verb {
	case "provider":
		return sayProvider(provider).with("registered", provider.IsRegistered()), nil
	case "update":
		return nil, provider.Update(ctx, w.values["metadata"])
	}
	return nil, fmt.Errorf("a provider cannot '%s'", w.verb)
}

func sayProvider(p *coord.Provider) *answer {
	return say("ok").with("service", p.Service()).with("instance", p.InstanceID()).with("metadata", p.Metadata())
}

func withObserver(w words, observer *coord.Observer) (*answer, error) {
	ctx, cancel := bounded()
	defer cancel()
	service := w.values["service"]
	switch w.verb {
	case "available":
		available, err := observer.IsAvailable(service)
		return say("ok").with("available", available), err
	case "services":
		services, err := observer.Services()
		return say("ok").with("services", strings.Join(services, ",")), err
	case "providers":
		return sayProviders(observer.Providers(service))
	case "synced":
		return say("ok").with("synced", observer.Synced()), nil
	}
	wait := map[string]func(context.Context, string) error{
		"await_available":   observer.WaitAvailable,
		"await_unavailable": observer.WaitUnavailable,
	}[w.verb]
	if wait == nil {
		return nil, fmt.Errorf("an observer cannot '%s'", w.verb)
	}
	if text, ok := w.values["timeout_ms"]; ok {
		ms, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	return nil, wait(ctx, service)
}

func sayProviders(providers []coord.ProviderInfo, err error) (*answer, error) {
	sort.Slice(providers, func(i, j int) bool { return providers[i].InstanceID < providers[j].InstanceID })
	var instances, metadata, owners []string
	for _, provider := range providers {
		instances = append(instances, provider.InstanceID)
		metadata = append(metadata, provider.Metadata)
		owners = append(owners, provider.Name)
	}
	a := say("ok").with("count", len(providers)).with("instances", strings.Join(instances, ","))
	return a.with("metadata", strings.Join(metadata, ",")).with("owners", strings.Join(owners, ",")), err
}

func sayObserved(event coord.ObserverEvent) *answer {
	a := say("ok").with("event", event.Change)
	if event.Service != "" {
		a.with("service", event.Service)
	}
	if p := event.Provider; p != nil {
		a.with("instance", p.InstanceID).with("metadata", p.Metadata).with("owner", p.Name).with("session", p.Session)
	}
	return a
}
