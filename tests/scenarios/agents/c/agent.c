/* The C agent: takes one command a line from the conductor, and answers with one line. README.md of the scenarios has
   the words. Waits block in the library; what was started goes through its event queue; functions and rounds have
   threads of their own. */
#define _POSIX_C_SOURCE 200809L
#include "agent.h"

#include <stdlib.h>
#include <time.h>

#include "contest.h"
#include "elections.h"
#include "reconcilers.h"
#include "services.h"
#include "tables.h"

static thing_t things[MAX_THINGS];
coord_queue_t *queue;

/* --- answers ----------------------------------------------------------------------------------------------------- */

const char *holder_state(const coord_holder_t *holder) {
    switch (coord_holder_state(holder)) {
    case COORD_HOLDER_LIVE: return "live";
    case COORD_HOLDER_SILENT: return "silent";
    default: return "dead";
    }
}

static void say_holder(const coord_holder_t *holder) {
    say("holder.name", coord_holder_name(holder));
    say("holder.session", coord_holder_session(holder));
    say_number("holder.pid", coord_holder_pid(holder));
    say_number("holder.token", coord_holder_token(holder));
    say("holder.state", holder_state(holder));
    say("holder.is_self", coord_holder_is_self(holder) ? "true" : "false");
}

void say_coord_error(const coord_error_t *error) {
    say_error(coord_error_name(error));
    say("message", coord_error_message(error));
    say("retryable", coord_error_is_retryable(error) ? "true" : "false");
    if (coord_error_loss(error) != COORD_LOSS_NONE) {
        say("reason", coord_loss_name(coord_error_loss(error)));
    }
    if (coord_error_holder(error) != NULL) {
        say_holder(coord_error_holder(error));
    }
}

/* Answers a call that has nothing to say but success, and ends its error. 1 if it succeeded. */
int say_status(coord_status_t status, coord_error_t **error) {
    if (status == COORD_OK) {
        say_ok();
    } else {
        say_coord_error(*error);
        coord_error_destroy(*error);
    }
    return status == COORD_OK;
}

static void say_granted(coord_held_t *held) {
    say_ok();
    say("lock", coord_held_name(held));
    say_number("token", coord_held_token(held));
}

/* --- things ------------------------------------------------------------------------------------------------------ */

thing_t *find(const char *name, kind_t kind) {
    for (thing_t *thing = things; thing < things + MAX_THINGS; thing++) {
        if (thing->kind == kind && name != NULL && strcmp(thing->name, name) == 0) {
            return thing;
        }
    }
    return NULL;
}

thing_t *add(kind_t kind, const char *name) {
    for (thing_t *thing = things; thing < things + MAX_THINGS; thing++) {
        if (thing->kind == NOTHING && name != NULL && strlen(name) < sizeof thing->name) {
            memset(thing, 0, sizeof *thing);
            thing->kind = kind;
            strcpy(thing->name, name);
            return thing;
        }
    }
    return NULL;
}

void forget(thing_t *thing) {
    coord_event_destroy(thing->event);
    coord_op_destroy(thing->op);
    coord_term_destroy(thing->term);
    coord_leader_watch_destroy(thing->leaders);
    coord_owner_watch_destroy(thing->owners);
    coord_provider_destroy(thing->provider);
    coord_observer_destroy(thing->observer);
    coord_work_destroy(thing->work);
    coord_delivery_destroy(thing->delivery);
    coord_table_watch_destroy(thing->table_watch);
    coord_table_log_destroy(thing->table_log);
    coord_cached_table_destroy(thing->cached);
    coord_reconciler_destroy(thing->reconciler);
    coord_candidacy_destroy(thing->candidacy);
    coord_held_destroy(thing->held);
    coord_lock_destroy(thing->lock);
    coord_client_destroy(thing->client);
    memset(thing, 0, sizeof *thing);
}

/* Keeps what was granted under the name, as a hold. */
static void keep(const char *name, coord_held_t *held) {
    thing_t *hold = add(HOLD, name);
    if (hold == NULL) {
        coord_held_destroy(held);
        say_fail("too many holds");
        return;
    }
    hold->held = held;
    say_granted(held);
}

/* The hold of this name: granted, or lent to the function that runs under it. */
static coord_held_t *held_of(const char *name) {
    thing_t *hold = find(name, HOLD), *run = find(name, RUN);
    return hold != NULL ? hold->held : run != NULL ? run->held : NULL;
}

coord_client_t *client_of(const words_t *words) {
    thing_t *client = find(words_get(words, "client", NULL), CLIENT);
    return client == NULL ? NULL : client->client;
}

int64_t number_of(const words_t *words, const char *name, int64_t otherwise) {
    const char *text = words_get(words, name, NULL);
    return text == NULL ? otherwise : strtoll(text, NULL, 10);
}

/* --- clients ----------------------------------------------------------------------------------------------------- */

static void say_session(coord_client_t *client) {
    coord_session_t *session = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_client_session(client, &session, &error), &error)) {
        return;
    }
    static const char *const states[] = {"opening", "live", "suspended", "lost"};
    say("session", coord_session_id(session));
    say("state", states[coord_session_state(session)]);
    say_number("remaining_ms", coord_session_remaining_ms(session));
    coord_session_destroy(session);
}

static coord_status_t configure(coord_config_t *config, const words_t *words, coord_error_t **error) {
    coord_status_t status = COORD_OK;
    for (size_t i = 0; i < words->count && status == COORD_OK; i++) {
        if (strncmp(words->names[i], "option.", 7) == 0) {
            const char *key = words->names[i] + 7;
            status = coord_config_set(config, key, COORD_NUL, words->values[i], words->lengths[i], error);
        }
    }
    return status;
}

static void do_connect(const words_t *words) {
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *url = words_get(words, "url", &length);
    coord_status_t status = coord_config_new(COORD_ABI_VERSION, url, length, &config, &error);
    if (status == COORD_OK) {
        status = configure(config, words, &error);
    }
    if (status == COORD_OK) {
        status = coord_client_connect(config, BOUND_MS, NULL, &client, &error);
    }
    coord_config_destroy(config);
    if (status != COORD_OK) {
        say_status(status, &error);
        return;
    }
    thing_t *thing = add(CLIENT, words_get(words, "client", NULL));
    if (thing == NULL) {
        coord_client_destroy(client);
        say_fail("too many clients");
        return;
    }
    thing->client = client;
    say_session(client);
}

/* The names of all who wait, joined by commas. */
static void say_waiters(const coord_lock_list_t *list) {
    char names[4096] = "";
    size_t count = coord_lock_list_waiter_count(list, 0);
    for (size_t i = 0; i < count; i++) {
        const char *name = coord_holder_name(coord_lock_list_waiter(list, 0, i));
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : ",", name);
    }
    say_number("waiting", (long long)count);
    say("waiters", names);
}

static void do_info(const words_t *words, coord_client_t *client) {
    coord_lock_list_t *list = NULL;
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *lock = words_get(words, "lock", &length);
    if (!say_status(coord_client_lock_info(client, lock, length, BOUND_MS, NULL, &list, &error), &error)) {
        return;
    }
    if (coord_lock_list_count(list) == 0) {
        say("exists", "false");
    } else {
        const coord_holder_t *holder = coord_lock_list_holder(list, 0);
        say("exists", "true");
        say("lock", coord_lock_list_name(list, 0));
        say_number("token", coord_lock_list_token(list, 0));
        say("breaking", coord_lock_list_is_breaking(list, 0) ? "true" : "false");
        say("held", holder == NULL ? "false" : "true");
        say_waiters(list);
        if (holder != NULL) {
            say_holder(holder);
        }
    }
    coord_lock_list_destroy(list);
}

static void do_locks(const words_t *words, coord_client_t *client) {
    coord_lock_list_t *list = NULL;
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *prefix = words_get(words, "prefix", &length);
    if (!say_status(coord_client_locks(client, prefix, length, BOUND_MS, NULL, &list, &error), &error)) {
        return;
    }
    char names[8192] = "";
    for (size_t i = 0; i < coord_lock_list_count(list); i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : ",", coord_lock_list_name(list, i));
    }
    say("locks", names);
    coord_lock_list_destroy(list);
}

static void do_break(const words_t *words, coord_client_t *client) {
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *lock = words_get(words, "lock", &length), *force = words_get(words, "force", NULL);
    int forced = force != NULL && strcmp(force, "true") == 0;
    int64_t token = number_of(words, "token", 0);
    say_status(coord_client_break_lock(client, lock, length, token, forced, BOUND_MS, NULL, &error), &error);
}

static void do_sanitize(const words_t *words) {
    char name[COORD_NAME_SIZE];
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *text = words_get(words, "text", &length);
    if (say_status(coord_name_sanitize(text, length, name, sizeof name, &error), &error)) {
        say("name", name);
    }
}

/* --- taking a lock ----------------------------------------------------------------------------------------------- */

static void do_acquire(const words_t *words, coord_lock_t *lock) {
    coord_held_t *held = NULL;
    coord_error_t *error = NULL;
    coord_status_t status = strcmp(words->verb, "try") == 0
                                ? coord_lock_try_acquire(lock, NULL, &held, &error)
                                : coord_lock_acquire(lock, number_of(words, "timeout_ms", -1), NULL, &held, &error);
    coord_lock_destroy(lock);
    if (status == COORD_OK) {
        keep(words_get(words, "as", NULL), held);
    } else {
        say_status(status, &error);
    }
}

static int32_t function_under_lock(coord_held_t *held, void *user_data) {
    thing_t *run = user_data;
    pthread_mutex_lock(&run->mutex);
    run->held = held;
    run->entered = 1;
    pthread_cond_broadcast(&run->changed);
    while (!run->finish) {
        pthread_cond_wait(&run->changed, &run->mutex);
    }
    run->held = NULL;
    pthread_mutex_unlock(&run->mutex);
    return 0;
}

static void *background(void *user_data) {
    thing_t *thing = user_data;
    if (thing->kind == RUN) {
        thing->status = coord_lock_run(thing->lock, -1, NULL, function_under_lock, thing, NULL, &thing->error);
    } else {
        thing->problem = contest_rounds(thing->lock, thing->rounds, thing->file);
    }
    pthread_mutex_lock(&thing->mutex);
    thing->done = 1;
    pthread_cond_broadcast(&thing->changed);
    pthread_mutex_unlock(&thing->mutex);
    return NULL;
}

void run_in_background(thing_t *thing, void *(*function)(void *)) {
    pthread_mutex_init(&thing->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&thing->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_create(&thing->thread, NULL, function, thing);
}

void join_background(thing_t *thing) {
    pthread_join(thing->thread, NULL);
    pthread_cond_destroy(&thing->changed);
    pthread_mutex_destroy(&thing->mutex);
}

uint64_t tag_of(const thing_t *thing) { return (uint64_t)(thing - things); }

static void start_thread(const words_t *words, kind_t kind, coord_lock_t *lock) {
    thing_t *thing = add(kind, words_get(words, "as", NULL));
    if (thing == NULL) {
        coord_lock_destroy(lock);
        say_fail("too many operations");
        return;
    }
    const char *file = words_get(words, "file", NULL);
    thing->lock = lock;
    thing->rounds = (long)number_of(words, "rounds", 0);
    snprintf(thing->file, sizeof thing->file, "%s", file == NULL ? "" : file);
    run_in_background(thing, background);
    say_ok();
}

static void start_acquire(const words_t *words, coord_lock_t *lock) {
    thing_t *thing = add(ACQUIRE, words_get(words, "as", NULL));
    coord_error_t *error = NULL;
    if (thing == NULL) {
        coord_lock_destroy(lock);
        say_fail("too many operations");
        return;
    }
    uint64_t tag = tag_of(thing);
    int64_t timeout_ms = number_of(words, "timeout_ms", -1);
    if (!say_status(coord_lock_acquire_start(lock, timeout_ms, queue, tag, &thing->op, &error), &error)) {
        forget(thing);
    }
    coord_lock_destroy(lock);
}

static void do_races(const words_t *words, coord_client_t *client, coord_lock_t *lock) {
    coord_error_t *error = NULL;
    coord_queue_t *own = NULL;
    long granted = 0, cancelled = 0;
    coord_status_t status = coord_queue_new(&own, &error);
    if (status == COORD_OK) {
        const char *name = words_get(words, "lock", NULL);
        long rounds = (long)number_of(words, "rounds", 0);
        status = contest_races(client, lock, name, rounds, own, &granted, &cancelled, &error);
    }
    coord_queue_destroy(own);
    coord_lock_destroy(lock);
    if (say_status(status, &error)) {
        say_number("granted", granted);
        say_number("cancelled", cancelled);
    }
}

static void do_with_lock(const words_t *words, coord_client_t *client) {
    coord_lock_t *lock = NULL;
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *name = words_get(words, "lock", &length);
    coord_status_t status = coord_lock_new(client, name, length, &lock, &error);
    if (status != COORD_OK) {
        say_status(status, &error);
    } else if (strcmp(words->verb, "start") == 0) {
        start_acquire(words, lock);
    } else if (strcmp(words->verb, "run") == 0) {
        start_thread(words, RUN, lock);
    } else if (strcmp(words->verb, "rounds") == 0) {
        start_thread(words, ROUNDS, lock);
    } else if (strcmp(words->verb, "races") == 0) {
        do_races(words, client, lock);
    } else {
        do_acquire(words, lock);
    }
}

/* --- what was started -------------------------------------------------------------------------------------------- */

/* Puts the next event to its operation. 0 if none came in time. */
static int next_event(int64_t timeout_ms) {
    coord_event_t *event = NULL;
    if (coord_queue_poll(queue, timeout_ms, &event, NULL) != COORD_OK || event == NULL) {
        return 0;
    }
    thing_t *thing = &things[coord_event_tag(event)];
    coord_event_destroy(thing->event);
    thing->event = event;
    return 1;
}

/* Waits until the flag is set by the thread of the thing. 0 if that takes too long. */
int wait_for(thing_t *thing, const int *flag) {
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += BOUND_MS / 1000;
    int status = 0;
    pthread_mutex_lock(&thing->mutex);
    while (!*flag && !thing->done && status == 0) {
        status = pthread_cond_timedwait(&thing->changed, &thing->mutex, &deadline);
    }
    int set = *flag;
    pthread_mutex_unlock(&thing->mutex);
    return set;
}

static void await_acquire(thing_t *thing) {
    while (thing->event == NULL) {
        if (!next_event(BOUND_MS)) {
            say_fail("it has not happened within 30 s");
            return;
        }
    }
    coord_held_t *held = NULL;
    coord_error_t *error = NULL;
    if (coord_event_status(thing->event) != COORD_OK) {
        say_coord_error(coord_event_error(thing->event));
        forget(thing);
        return;
    }
    if (thing->kind == CAMPAIGN) {
        take_term(thing);
        return;
    }
    coord_status_t status = coord_event_take_held(thing->event, &held, &error);
    char name[sizeof thing->name];
    strcpy(name, thing->name);
    forget(thing);
    if (status == COORD_OK) {
        keep(name, held);
    } else {
        say_status(status, &error);
    }
}

static void await_thread(thing_t *thing) {
    if (!wait_for(thing, &thing->done)) {
        say_fail("it has not happened within 30 s");
        return;
    }
    join_background(thing);
    if (thing->problem != NULL) {
        say_fail(thing->problem);
    } else {
        say_status(thing->status, &thing->error);
    }
    thing->held = NULL;
    forget(thing);
}

static void do_pending(thing_t *thing) {
    int queued = thing->kind == ACQUIRE || thing->kind == CAMPAIGN;
    if (queued) {
        while (next_event(0)) {
        }
    } else {
        pthread_mutex_lock(&thing->mutex);
    }
    int done = thing->event != NULL || thing->done;
    if (!queued) {
        pthread_mutex_unlock(&thing->mutex);
    }
    say_ok();
    say("pending", done ? "false" : "true");
}

static void do_entered(thing_t *run) {
    if (!wait_for(run, &run->entered)) {
        say_fail("the function was not called");
        return;
    }
    say_granted(run->held);
}

static void do_finish(thing_t *run) {
    pthread_mutex_lock(&run->mutex);
    run->finish = 1;
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->mutex);
    say_ok();
}

static void do_with_operation(const words_t *words) {
    const char *name = words_get(words, "hold", NULL);
    thing_t *acquire = find(name, ACQUIRE), *run = find(name, RUN), *rounds = find(name, ROUNDS);
    if (acquire == NULL) {
        acquire = find(name, CAMPAIGN);
    }
    thing_t *any = acquire != NULL ? acquire : run != NULL ? run : rounds;
    if (any == NULL) {
        say_fail("there is no operation of that name");
    } else if (strcmp(words->verb, "await") == 0) {
        acquire != NULL ? await_acquire(any) : await_thread(any);
    } else if (strcmp(words->verb, "pending") == 0) {
        do_pending(any);
    } else if (strcmp(words->verb, "cancel") == 0 && acquire != NULL) {
        coord_op_cancel(acquire->op);
        say_ok();
    } else if (strcmp(words->verb, "entered") == 0 && run != NULL) {
        do_entered(run);
    } else if (strcmp(words->verb, "finish") == 0 && run != NULL) {
        do_finish(run);
    } else {
        say_fail("this operation cannot do that");
    }
}

/* --- holds ------------------------------------------------------------------------------------------------------- */

static void do_lost(coord_held_t *held) {
    coord_error_t *error = NULL;
    int32_t loss = COORD_LOSS_NONE;
    if (say_status(coord_held_wait_lost(held, BOUND_MS, NULL, &loss, &error), &error)) {
        say("reason", coord_loss_name(loss));
    }
}

static void do_drop(const words_t *words) {
    static const kind_t kinds[] = {HOLD, TERM, PROVIDER, OBSERVER, LEADERS, OWNERS, WORK, TABLE_WATCH, TABLE_LOG, CACHED_TABLE};
    thing_t *hold = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && hold == NULL; i++) {
        hold = find(words_get(words, "hold", NULL), kinds[i]);
    }
    if (hold == NULL && words_get(words, "if_held", NULL) == NULL) {
        say_fail("there is no hold of that name");
        return;
    }
    if (hold != NULL) {
        forget(hold);
    }
    say_ok();
}

static int do_with_hold(const words_t *words, coord_held_t *held) {
    coord_error_t *error = NULL;
    if (strcmp(words->verb, "held") == 0) {
        say_granted(held);
        say_number("remaining_ms", coord_held_remaining_ms(held));
    } else if (strcmp(words->verb, "check") == 0) {
        say_status(coord_held_check(held, &error), &error);
    } else if (strcmp(words->verb, "ensure") == 0) {
        say_status(coord_held_ensure(held, number_of(words, "ms", 0), BOUND_MS, NULL, &error), &error);
    } else if (strcmp(words->verb, "lost") == 0) {
        do_lost(held);
    } else if (strcmp(words->verb, "release") == 0) {
        say_status(coord_held_release(held, BOUND_MS, NULL, &error), &error);
    } else {
        return 0;
    }
    return 1;
}

/* --- commands ---------------------------------------------------------------------------------------------------- */

static int is_one_of(const char *verb, const char *const *verbs) {
    while (*verbs != NULL && strcmp(*verbs, verb) != 0) {
        verbs++;
    }
    return *verbs != NULL;
}

static void do_with_client(const words_t *words, coord_client_t *client) {
    coord_error_t *error = NULL;
    if (strcmp(words->verb, "close") == 0) {
        say_status(coord_client_close(client, number_of(words, "timeout_ms", CLOSE_MS), &error), &error);
    } else if (strcmp(words->verb, "session") == 0) {
        say_session(client);
    } else if (strcmp(words->verb, "info") == 0) {
        do_info(words, client);
    } else if (strcmp(words->verb, "locks") == 0) {
        do_locks(words, client);
    } else if (strcmp(words->verb, "break") == 0) {
        do_break(words, client);
    } else if (strcmp(words->verb, "sanitize") == 0) {
        do_sanitize(words);
    } else {
        say_fail("there is no such command");
    }
}

static void answer(const words_t *words) {
    static const char *const with_lock[] = {"acquire", "try", "start", "run", "rounds", "races", NULL};
    static const char *const with_operation[] = {"await", "pending", "cancel", "entered", "finish", NULL};
    coord_client_t *client = client_of(words);
    coord_held_t *held = held_of(words_get(words, "hold", NULL));
    if (strcmp(words->verb, "connect") == 0) {
        do_connect(words);
    } else if (strcmp(words->verb, "drop") == 0) {
        do_drop(words);
    } else if (do_with_table(words)) {
        return;
    } else if (do_with_term(words) || do_with_candidacy(words) || do_with_feed(words) || do_with_reconciler(words)) {
        return;
    } else if (is_one_of(words->verb, with_operation)) {
        do_with_operation(words);
    } else if (words_get(words, "hold", NULL) != NULL) {
        if (held == NULL || !do_with_hold(words, held)) {
            say_fail("there is no such hold, or no such command");
        }
    } else if (client == NULL) {
        say_fail("there is no client of that name");
    } else if (do_with_election(words, client) || do_with_services(words, client) || do_reconcile(words, client)) {
        return;
    } else if (is_one_of(words->verb, with_lock)) {
        do_with_lock(words, client);
    } else {
        do_with_client(words, client);
    }
}

/* Ends what the story has left open. */
static void end(void) {
    for (thing_t *thing = things; thing < things + MAX_THINGS; thing++) {
        if (thing->kind == CANDIDACY) {
            end_candidacy(thing);
        }
    }
    /* A reconciler waits for its runs. */
    for (thing_t *thing = things; thing < things + MAX_THINGS; thing++) {
        if (thing->kind == WORK) {
            forget(thing);
        }
    }
    for (thing_t *thing = things; thing < things + MAX_THINGS; thing++) {
        if (thing->kind == RECONCILER) {
            end_reconciler(thing);
        }
    }
    for (thing_t *thing = things; thing < things + MAX_THINGS; thing++) {
        if (thing->kind == CLIENT) {
            coord_client_close(thing->client, CLOSE_MS, NULL);
        }
    }
    for (thing_t *thing = things; thing < things + MAX_THINGS; thing++) {
        forget(thing);
    }
    coord_queue_destroy(queue);
}

int main(void) {
    coord_error_t *error = NULL;
    if (coord_queue_new(&queue, &error) != COORD_OK) {
        fprintf(stderr, "agent: %s\n", coord_error_message(error));
        coord_error_destroy(error);
        return 1;
    }
    char *line = NULL;
    size_t size = 0;
    words_t words;
    while (getline(&line, &size, stdin) > 0) {
        if (words_parse(line, &words)) {
            answer(&words);
        } else {
            say_fail("this is no line of the protocol");
        }
        say_end();
    }
    free(line);
    end();
    return 0;
}
