/* What the parts of the C agent share: the things that were begun under a name, and answers. */
#ifndef AGENT_H
#define AGENT_H

#include <coord.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "words.h"

#define BOUND_MS 30000
#define CLOSE_MS 20000
#define MAX_THINGS 64

typedef enum {
    NOTHING, CLIENT, HOLD, ACQUIRE, RUN, ROUNDS, TERM, CAMPAIGN, CANDIDACY, LEADERS, OWNERS, PROVIDER, OBSERVER,
    RECONCILER, WORK, TABLE_WATCH, TABLE_LOG, CACHED_TABLE
} kind_t;

/* What was begun under a name. Its place in the table is the tag of its events. */
typedef struct {
    kind_t kind;
    char name[64];
    coord_client_t *client;
    coord_lock_t *lock;
    coord_held_t *held;
    coord_term_t *term;
    coord_candidacy_t *candidacy;
    coord_leader_watch_t *leaders;
    coord_owner_watch_t *owners;
    coord_provider_t *provider;
    coord_observer_t *observer;
    coord_reconciler_t *reconciler;
    struct ran *ran; /* of a reconciler that is served */
    coord_work_t *work;
    coord_table_watch_t *table_watch;
    coord_delivery_t *delivery; /* that is not acknowledged yet */
    coord_table_log_t *table_log;
    coord_cached_table_t *cached;
    coord_op_t *op;
    coord_event_t *event; /* the terminal one, once it has come */
    pthread_t thread;     /* of a run, of rounds or of a candidacy, with what they share: */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int entered, finish, done, running;
    long calls;
    char failure[256]; /* of a candidacy's call; empty for none */
    int fails;
    coord_status_t status;
    coord_error_t *error;
    const char *problem;
    long rounds;
    char file[1024];
} thing_t;

extern coord_queue_t *queue;

thing_t *find(const char *name, kind_t kind);
thing_t *add(kind_t kind, const char *name);
void forget(thing_t *thing);
uint64_t tag_of(const thing_t *thing);

coord_client_t *client_of(const words_t *words);
int64_t number_of(const words_t *words, const char *name, int64_t otherwise);

/* Runs a function with the thing on a thread of its own, and waits for the end of that. */
void run_in_background(thing_t *thing, void *(*function)(void *));
void join_background(thing_t *thing);

/* Waits until the flag is set by the thread of the thing. 0 if that takes too long. */
int wait_for(thing_t *thing, const int *flag);

void say_coord_error(const coord_error_t *error);

/* Answers a call that has nothing to say but success, and ends its error. 1 if it succeeded. */
int say_status(coord_status_t status, coord_error_t **error);

const char *holder_state(const coord_holder_t *holder);

#endif
