/* What the C tests share: checks that say where and why, and the start of most stories.
 *
 * Each program tests one behaviour and exits with 0. The store is in COORD_TEST_URL; the runner gives each program a
 * fresh one. No test sleeps: a wait is for an event, and ends after WAIT_MS at the latest. */
#ifndef COORD_TEST_H
#define COORD_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <coord.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 30000

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

#define EQUAL(actual, expected) \
    do { \
        long long actual_ = (long long)(actual), expected_ = (long long)(expected); \
        if (actual_ != expected_) { \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #actual, actual_, expected_); \
            abort(); \
        } \
    } while (0)

#define SAME_TEXT(actual, expected) \
    do { \
        const char *actual_ = (actual); \
        if (strcmp(actual_, expected) != 0) { \
            fprintf(stderr, "%s:%d: %s is '%s', not '%s'\n", __FILE__, __LINE__, #actual, actual_, expected); \
            abort(); \
        } \
    } while (0)

/* The call, which uses `&err`, succeeds and leaves `err` alone. */
#define OK(call) \
    do { \
        coord_error_t *err = NULL; \
        coord_status_t status_ = (call); \
        if (status_ != COORD_OK) { \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, coord_status_name(status_), \
                    coord_error_message(err)); \
            abort(); \
        } \
        CHECK(err == NULL); \
    } while (0)

/* The call fails with this status, and with an error that says the same and has a message. */
#define FAILS(expected, call) \
    do { \
        coord_error_t *err = NULL; \
        coord_status_t status_ = (call); \
        if (status_ != (expected)) { \
            fprintf(stderr, "%s:%d: %s gives %s (%s), not %s\n", __FILE__, __LINE__, #call, \
                    coord_status_name(status_), coord_error_message(err), coord_status_name(expected)); \
            abort(); \
        } \
        EQUAL(coord_error_code(err), status_); \
        SAME_TEXT(coord_error_name(err), coord_status_name(status_)); \
        CHECK(coord_error_message(err)[0] != 0); \
        coord_error_destroy(err); \
    } while (0)

#define UNUSED __attribute__((unused))

static UNUSED const char *test_url(void) {
    const char *url = getenv("COORD_TEST_URL");
    return url == NULL ? "memory:" : url;
}

static UNUSED coord_client_t *connect_to(const char *url, const char *name) {
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    OK(coord_config_new(COORD_ABI_VERSION, url, COORD_NUL, &config, &err));
    OK(coord_config_set(config, "name", COORD_NUL, name, COORD_NUL, &err));
    OK(coord_client_connect(config, WAIT_MS, NULL, &client, &err));
    coord_config_destroy(config);
    return client;
}

static UNUSED coord_client_t *connect_as(const char *name) {
    return connect_to(test_url(), name);
}

static UNUSED coord_lock_t *lock_of(coord_client_t *client, const char *name) {
    coord_lock_t *lock = NULL;
    OK(coord_lock_new(client, name, COORD_NUL, &lock, &err));
    return lock;
}

static UNUSED coord_held_t *acquire(coord_lock_t *lock) {
    coord_held_t *held = NULL;
    OK(coord_lock_acquire(lock, WAIT_MS, NULL, &held, &err));
    return held;
}

static UNUSED void release(coord_held_t *held) {
    OK(coord_held_release(held, WAIT_MS, NULL, &err));
    coord_held_destroy(held);
}

static UNUSED coord_queue_t *new_queue(void) {
    coord_queue_t *queue = NULL;
    OK(coord_queue_new(&queue, &err));
    return queue;
}

/* The next event, which is of this type and has this tag and status. */
static UNUSED coord_event_t *expect_event(coord_queue_t *queue, int32_t type, uint64_t tag, coord_status_t status) {
    coord_event_t *event = NULL;
    OK(coord_queue_poll(queue, WAIT_MS, &event, &err));
    EQUAL(coord_event_tag(event), tag);
    EQUAL(coord_event_type(event), type);
    if (coord_event_status(event) != status) {
        fprintf(stderr, "event: %s\n", coord_error_message(coord_event_error(event)));
    }
    EQUAL(coord_event_status(event), status);
    EQUAL(coord_error_code(coord_event_error(event)), status);
    return event;
}

static UNUSED void expect_no_event(coord_queue_t *queue) {
    coord_event_t *event = NULL;
    EQUAL(coord_queue_poll(queue, 0, &event, NULL), COORD_E_TIMEOUT);
    CHECK(event == NULL);
}

static UNUSED void expect(coord_queue_t *queue, int32_t type, uint64_t tag, coord_status_t status) {
    coord_event_destroy(expect_event(queue, type, tag, status));
}

/* One look at something that becomes true soon: calls sched_yield between looks. */
#define EVENTUALLY(condition) \
    do { \
        struct timespec start_, now_; \
        clock_gettime(CLOCK_MONOTONIC, &start_); \
        while (!(condition)) { \
            clock_gettime(CLOCK_MONOTONIC, &now_); \
            if (now_.tv_sec - start_.tv_sec > WAIT_MS / 1000) { \
                fprintf(stderr, "%s:%d: still not so: %s\n", __FILE__, __LINE__, #condition); \
                abort(); \
            } \
            poll(NULL, 0, 1); \
        } \
    } while (0)

#endif
