#define _POSIX_C_SOURCE 200809L
#include "services.h"

#include <stdlib.h>

#include "elections.h"

#define MAX_LISTED 256

static int is(const words_t *words, const char *verb) { return strcmp(words->verb, verb) == 0; }

static int by_text(const void *one, const void *other) {
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

/* Answers with texts joined by commas. */
static void say_list(const char *name, const char *const *texts, size_t count) {
    char joined[16384] = "";
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(joined);
        snprintf(joined + used, sizeof joined - used, "%s%s", i == 0 ? "" : ",", texts[i]);
    }
    say(name, joined);
}

/* --- owners ------------------------------------------------------------------------------------------------------ */

static void say_owner(const coord_owner_t *owner, coord_client_t *client) {
    static const char *const states[] = {"live", "silent", "dead"};
    const char *texts[MAX_LISTED];
    coord_session_t *session = NULL;
    coord_client_session(client, &session, NULL);
    say("exists", "true");
    say("session", coord_owner_session(owner));
    say("name", coord_owner_name(owner));
    say_number("pid", coord_owner_pid(owner));
    say("state", states[coord_owner_state(owner)]);
    say("is_self", strcmp(coord_owner_session(owner), coord_session_id(session)) == 0 ? "true" : "false");
    coord_session_destroy(session);
    for (size_t i = 0; i < coord_owner_label_count(owner); i++) {
        char name[300];
        snprintf(name, sizeof name, "label.%s", coord_owner_label_key(owner, i));
        say(name, coord_owner_label_value(owner, i));
    }
    size_t count = 0;
    for (; count < coord_owner_hold_count(owner) && count < MAX_LISTED; count++) {
        texts[count] = coord_owner_hold(owner, count);
    }
    say_list("holds", texts, count);
    for (count = 0; count < coord_owner_service_count(owner) && count < MAX_LISTED; count++) {
        texts[count] = coord_owner_service(owner, count);
    }
    say_list("provides", texts, count);
}

static void do_owners(const words_t *words, coord_client_t *client) {
    coord_owner_list_t *list = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_client_owners(client, BOUND_MS, NULL, &list, &error), &error)) {
        return;
    }
    size_t count = coord_owner_list_count(list);
    if (is(words, "owners")) {
        const char *names[MAX_LISTED];
        size_t listed = 0;
        for (; listed < count && listed < MAX_LISTED; listed++) {
            names[listed] = coord_owner_name(coord_owner_list_at(list, listed));
        }
        qsort(names, listed, sizeof *names, by_text);
        say_list("owners", names, listed);
        say_number("count", (long long)count);
    } else {
        const char *session = words_get(words, "session", NULL);
        const coord_owner_t *found = NULL;
        for (size_t i = 0; i < count; i++) {
            const coord_owner_t *owner = coord_owner_list_at(list, i);
            found = strcmp(coord_owner_session(owner), session) == 0 ? owner : found;
        }
        if (found == NULL) {
            say("exists", "false");
        } else {
            say_owner(found, client);
        }
    }
    coord_owner_list_destroy(list);
}

static void do_watch_owners(const words_t *words, coord_client_t *client) {
    coord_owner_watch_t *watch = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_client_watch_owners(client, BOUND_MS, NULL, &watch, &error), &error)) {
        return;
    }
    thing_t *thing = add(OWNERS, words_get(words, "as", NULL));
    if (thing == NULL) {
        coord_owner_watch_destroy(watch);
        return;
    }
    thing->owners = watch;
}

static void next_of_owners(coord_owner_watch_t *watch) {
    static const char *const names[] = {"none", "snapshot_start", "snapshot_end", "joined", "left", "expired"};
    coord_owner_event_t *event = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_owner_watch_next(watch, BOUND_MS, NULL, &event, &error), &error)) {
        return;
    }
    const coord_owner_t *owner = coord_owner_event_owner(event);
    say("event", names[coord_owner_event_type(event)]);
    if (owner != NULL) {
        say("name", coord_owner_name(owner));
        say("session", coord_owner_session(owner));
    }
    coord_owner_event_destroy(event);
}

/* --- providers --------------------------------------------------------------------------------------------------- */

static void say_provider(coord_provider_t *provider) {
    coord_text_t *metadata = NULL;
    coord_error_t *error = NULL;
    if (say_status(coord_provider_metadata(provider, &metadata, &error), &error)) {
        say("service", coord_provider_service(provider));
        say("instance", coord_provider_instance_id(provider));
        say("metadata", coord_text_data(metadata));
        coord_text_destroy(metadata);
    }
}

static void do_provide(const words_t *words, coord_client_t *client) {
    coord_options_t *options = NULL;
    coord_provider_t *provider = NULL;
    coord_error_t *error = NULL;
    size_t service_length = 0, metadata_length = 0, length = 0;
    const char *service = words_get(words, "service", &service_length);
    const char *metadata = words_get(words, "metadata", &metadata_length), *instance = words_get(words, "instance", &length);
    const char *again = words_get(words, "reregister", NULL);
    coord_options_new(&options, NULL);
    if (instance != NULL) {
        coord_options_set_text(options, "instance_id", COORD_NUL, instance, length, NULL);
    }
    if (again != NULL) {
        coord_options_set_number(options, "reregister", COORD_NUL, strcmp(again, "false") != 0, NULL);
    }
    coord_status_t status = coord_client_provide(client, service, service_length, metadata, metadata_length, options,
                                                 BOUND_MS, NULL, &provider, &error);
    coord_options_destroy(options);
    if (status != COORD_OK) {
        say_status(status, &error);
        return;
    }
    thing_t *thing = add(PROVIDER, words_get(words, "as", NULL));
    if (thing == NULL) {
        coord_provider_destroy(provider);
        say_fail("too many providers");
        return;
    }
    thing->provider = provider;
    say_provider(provider);
}

static void next_of_provider(coord_provider_t *provider) {
    static const char *const names[] = {"none", "registered", "lost", "reregistered", "closed"};
    coord_error_t *error = NULL;
    int32_t type = 0, loss = COORD_LOSS_NONE;
    if (say_status(coord_provider_next(provider, BOUND_MS, NULL, &type, &loss, &error), &error)) {
        say("event", names[type]);
        if (loss != COORD_LOSS_NONE) {
            say("reason", coord_loss_name(loss));
        }
    }
}

static int do_with_provider(const words_t *words, coord_provider_t *provider) {
    coord_error_t *error = NULL;
    size_t length = 0;
    if (is(words, "provider")) {
        say_provider(provider);
        say("registered", coord_provider_is_registered(provider) ? "true" : "false");
    } else if (is(words, "update")) {
        const char *metadata = words_get(words, "metadata", &length);
        say_status(coord_provider_update(provider, metadata, length, BOUND_MS, NULL, &error), &error);
    } else if (is(words, "next")) {
        next_of_provider(provider);
    } else if (is(words, "end")) {
        say_status(coord_provider_close(provider, BOUND_MS, NULL, &error), &error);
    } else {
        return 0;
    }
    return 1;
}

/* --- observers --------------------------------------------------------------------------------------------------- */

static void do_watch(const words_t *words, coord_client_t *client) {
    coord_options_t *options = NULL;
    coord_observer_t *observer = NULL;
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *service = words_get(words, "service", &length);
    coord_options_new(&options, NULL);
    coord_options_set_number(options, "down_grace_ms", COORD_NUL, number_of(words, "down_grace_ms", 0), NULL);
    coord_status_t status = coord_client_observe(client, service, length, options, BOUND_MS, NULL, &observer, &error);
    coord_options_destroy(options);
    if (!say_status(status, &error)) {
        return;
    }
    thing_t *thing = add(OBSERVER, words_get(words, "as", NULL));
    if (thing == NULL) {
        coord_observer_destroy(observer);
        return;
    }
    thing->observer = observer;
}

static void next_of_observer(coord_observer_t *observer) {
    static const char *const names[] = {"none", "snapshot_start", "snapshot_end", "first_up", "last_down", "joined",
                                        "left", "changed"};
    coord_observer_event_t *event = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_observer_next(observer, BOUND_MS, NULL, &event, &error), &error)) {
        return;
    }
    const coord_provider_info_t *provider = coord_observer_event_provider(event);
    say("event", names[coord_observer_event_type(event)]);
    if (coord_observer_event_service(event)[0] != '\0') {
        say("service", coord_observer_event_service(event));
    }
    if (provider != NULL) {
        say("instance", coord_provider_info_instance_id(provider));
        say("metadata", coord_provider_info_metadata(provider));
        say("owner", coord_provider_info_name(provider));
        say("session", coord_provider_info_session(provider));
    }
    coord_observer_event_destroy(event);
}

static int by_instance(const void *one, const void *other) {
    const coord_provider_info_t *const *a = one, *const *b = other;
    return strcmp(coord_provider_info_instance_id(*a), coord_provider_info_instance_id(*b));
}

static void do_providers(coord_observer_t *observer, const char *service, size_t length) {
    coord_provider_list_t *list = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_observer_providers(observer, service, length, &list, &error), &error)) {
        return;
    }
    const coord_provider_info_t *providers[MAX_LISTED];
    const char *instances[MAX_LISTED], *metadata[MAX_LISTED], *owners[MAX_LISTED];
    size_t count = coord_provider_list_count(list);
    count = count < MAX_LISTED ? count : MAX_LISTED;
    for (size_t i = 0; i < count; i++) {
        providers[i] = coord_provider_list_at(list, i);
    }
    qsort(providers, count, sizeof *providers, by_instance);
    for (size_t i = 0; i < count; i++) {
        instances[i] = coord_provider_info_instance_id(providers[i]);
        metadata[i] = coord_provider_info_metadata(providers[i]);
        owners[i] = coord_provider_info_name(providers[i]);
    }
    say_number("count", (long long)count);
    say_list("instances", instances, count);
    say_list("metadata", metadata, count);
    say_list("owners", owners, count);
    coord_provider_list_destroy(list);
}

static void do_services(coord_observer_t *observer) {
    coord_name_list_t *list = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_observer_services(observer, &list, &error), &error)) {
        return;
    }
    const char *names[MAX_LISTED];
    size_t count = 0;
    for (; count < coord_name_list_count(list) && count < MAX_LISTED; count++) {
        names[count] = coord_name_list_at(list, count);
    }
    say_list("services", names, count);
    coord_name_list_destroy(list);
}

static int do_with_observer(const words_t *words, coord_observer_t *observer) {
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *service = words_get(words, "service", &length);
    int64_t timeout_ms = number_of(words, "timeout_ms", BOUND_MS);
    int32_t available = 0;
    if (is(words, "available")) {
        if (say_status(coord_observer_is_available(observer, service, length, &available, &error), &error)) {
            say("available", available ? "true" : "false");
        }
    } else if (is(words, "services")) {
        do_services(observer);
    } else if (is(words, "providers")) {
        do_providers(observer, service, length);
    } else if (is(words, "await_available")) {
        say_status(coord_observer_wait_available(observer, service, length, timeout_ms, NULL, &error), &error);
    } else if (is(words, "await_unavailable")) {
        say_status(coord_observer_wait_unavailable(observer, service, length, timeout_ms, NULL, &error), &error);
    } else if (is(words, "synced")) {
        say_ok();
        say("synced", coord_observer_is_synced(observer) ? "true" : "false");
    } else if (is(words, "next")) {
        next_of_observer(observer);
    } else if (is(words, "end")) {
        say_status(coord_observer_close(observer, &error), &error);
    } else {
        return 0;
    }
    return 1;
}

/* ----------------------------------------------------------------------------------------------------------------- */

static void next_of_leaders(coord_leader_watch_t *watch) {
    coord_leader_t *leader = NULL;
    coord_error_t *error = NULL;
    if (say_status(coord_leader_watch_next(watch, BOUND_MS, NULL, &leader, &error), &error)) {
        say_leader_event(leader);
        coord_leader_destroy(leader);
    }
}

/* A watch of leaders or owners can tell what is next, and end. */
static int do_with_watch(const words_t *words, thing_t *watch) {
    if (is(words, "end")) {
        forget(watch);
        say_ok();
    } else if (is(words, "next") && watch->kind == LEADERS) {
        next_of_leaders(watch->leaders);
    } else if (is(words, "next")) {
        next_of_owners(watch->owners);
    } else {
        return 0;
    }
    return 1;
}

int do_with_feed(const words_t *words) {
    const char *name = words_get(words, "hold", NULL);
    thing_t *provider = find(name, PROVIDER), *observer = find(name, OBSERVER);
    thing_t *watch = find(name, LEADERS) != NULL ? find(name, LEADERS) : find(name, OWNERS);
    return (provider != NULL && do_with_provider(words, provider->provider)) ||
           (observer != NULL && do_with_observer(words, observer->observer)) ||
           (watch != NULL && do_with_watch(words, watch));
}

int do_with_services(const words_t *words, coord_client_t *client) {
    if (is(words, "owners") || is(words, "owner")) {
        do_owners(words, client);
    } else if (is(words, "watch_owners")) {
        do_watch_owners(words, client);
    } else if (is(words, "provide")) {
        do_provide(words, client);
    } else if (is(words, "watch")) {
        do_watch(words, client);
    } else {
        return 0;
    }
    return 1;
}
