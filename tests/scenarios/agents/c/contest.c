#define _POSIX_C_SOURCE 200809L
#include "contest.h"

#include <sched.h>
#include <stdio.h>

enum { RELEASED = 1, WAITED = 2 };

static int read_counter(const char *file, long long *count, long long *token) {
    FILE *in = fopen(file, "r");
    if (in == NULL) {
        *count = *token = 0;
        return 1;
    }
    int read = fscanf(in, "%lld %lld", count, token);
    fclose(in);
    return read == 2;
}

static const char *count_up(coord_held_t *held, const char *file) {
    long long count = 0, last = 0;
    if (!read_counter(file, &count, &last)) {
        return "the file is not two numbers, so two have written at once";
    }
    sched_yield();
    if (last >= coord_held_token(held)) {
        return "a later token has written before";
    }
    if (coord_held_check(held, NULL) != COORD_OK) {
        return "the hold was lost";
    }
    FILE *out = fopen(file, "w");
    if (out == NULL) {
        return "the file cannot be written";
    }
    fprintf(out, "%lld %lld\n", count + 1, (long long)coord_held_token(held));
    return fclose(out) == 0 ? NULL : "the file cannot be written";
}

const char *contest_rounds(coord_lock_t *lock, long rounds, const char *file) {
    for (long round = 0; round < rounds; round++) {
        coord_held_t *held = NULL;
        if (coord_lock_acquire(lock, -1, NULL, &held, NULL) != COORD_OK) {
            return "the lock could not be acquired";
        }
        const char *problem = count_up(held, file);
        if (problem == NULL && coord_held_release(held, -1, NULL, NULL) != COORD_OK) {
            problem = "the lock could not be released";
        }
        coord_held_destroy(held);
        if (problem != NULL) {
            return problem;
        }
    }
    return NULL;
}

static coord_status_t wait_until_queued(coord_client_t *client, const char *name, coord_error_t **err) {
    for (;;) {
        coord_lock_list_t *list = NULL;
        coord_status_t status = coord_client_lock_info(client, name, COORD_NUL, -1, NULL, &list, err);
        if (status != COORD_OK) {
            return status;
        }
        size_t waiting = coord_lock_list_count(list) == 0 ? 0 : coord_lock_list_waiter_count(list, 0);
        coord_lock_list_destroy(list);
        if (waiting > 0) {
            return COORD_OK;
        }
        sched_yield();
    }
}

/* Takes both terminal events, in whatever order they come. */
static coord_status_t take_both(coord_queue_t *queue, coord_held_t **held, coord_status_t *waited, coord_error_t **err) {
    coord_status_t released = COORD_OK;
    for (int seen = 0; seen < 2; seen++) {
        coord_event_t *event = NULL;
        coord_status_t status = coord_queue_poll(queue, -1, &event, err);
        if (status != COORD_OK) {
            return status;
        }
        if (coord_event_tag(event) == RELEASED) {
            released = coord_event_status(event);
        } else {
            *waited = coord_event_status(event);
            if (*waited == COORD_OK) {
                status = coord_event_take_held(event, held, err);
            }
        }
        coord_event_destroy(event);
        if (status != COORD_OK) {
            return status;
        }
    }
    return released;
}

static coord_status_t race(coord_client_t *client, coord_lock_t *lock, const char *name, long round,
                           coord_queue_t *queue, coord_status_t *waited, coord_error_t **err) {
    coord_held_t *first = NULL, *second = NULL;
    coord_op_t *release = NULL, *wait = NULL;
    coord_status_t status = coord_lock_acquire(lock, -1, NULL, &first, err);
    if (status == COORD_OK) {
        status = coord_lock_acquire_start(lock, -1, queue, WAITED, &wait, err);
    }
    if (status == COORD_OK) {
        status = wait_until_queued(client, name, err);
    }
    if (status == COORD_OK) {
        status = coord_held_release_start(first, -1, queue, RELEASED, &release, err);
    }
    if (status == COORD_OK) {
        for (long yields = round % 4; yields > 0; yields--) {
            sched_yield();
        }
        coord_op_cancel(wait);
        status = take_both(queue, &second, waited, err);
    }
    if (second != NULL) {
        coord_status_t released = coord_held_release(second, -1, NULL, status == COORD_OK ? err : NULL);
        status = status == COORD_OK ? released : status;
    }
    coord_op_destroy(wait);
    coord_op_destroy(release);
    coord_held_destroy(second);
    coord_held_destroy(first);
    return status;
}

coord_status_t contest_races(coord_client_t *client, coord_lock_t *lock, const char *name, long rounds,
                             coord_queue_t *queue, long *granted, long *cancelled, coord_error_t **err) {
    for (long round = 0; round < rounds; round++) {
        coord_status_t waited = COORD_OK;
        coord_status_t status = race(client, lock, name, round, queue, &waited, err);
        if (status == COORD_OK && waited != COORD_OK && waited != COORD_E_CANCELLED) {
            status = waited;
        }
        if (status != COORD_OK) {
            return status;
        }
        *(waited == COORD_OK ? granted : cancelled) += 1;
    }
    return COORD_OK;
}
