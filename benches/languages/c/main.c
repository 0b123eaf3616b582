/* What calls without I/O, and a reconciler's queue, cost a program in C. The lines are those of rust/main.rs. */
#define _POSIX_C_SOURCE 200809L
#include <coord.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define WORKERS 8
#define WAIT_MS 30000

static coord_client_t *client;
static coord_reconciler_t *reconciler;
/* Keys that are still to be run, and when the last of them was. */
static atomic_long left;
static int64_t called;
static sem_t told;

/* Ends the program unless the call, which uses `&err`, succeeds. */
#define OK(call) \
    do { \
        coord_error_t *err = NULL; \
        if ((call) != COORD_OK) { \
            printf("error %s: %s\n", coord_error_name(err), coord_error_message(err)); \
            exit(1); \
        } \
    } while (0)

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* --- the queue ----------------------------------------------------------------------------------------------------- */

static void *work(void *unused) {
    coord_work_t *work = NULL;
    while (coord_reconciler_next(reconciler, -1, NULL, &work, NULL) == COORD_OK) {
        if (atomic_fetch_sub(&left, 1) == 1) {
            called = now();
            sem_post(&told);
        }
        OK(coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, &err));
        coord_work_destroy(work);
    }
    return unused;
}

static void reconcile(void) {
    coord_source_t *source = NULL;
    coord_options_t *options = NULL;
    OK(coord_source_manual(&source, &err));
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_number(options, "workers", COORD_NUL, WORKERS, &err));
    OK(coord_client_reconcile(client, "bench", COORD_NUL, source, COORD_FORMAT_JSON, options, WAIT_MS, NULL, &reconciler,
                              &err));
    coord_options_destroy(options);
    coord_source_destroy(source);
    sem_init(&told, 0, 0);
    for (int worker = 0; worker < WORKERS; worker++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL) != 0) {
            printf("error there are no threads\n");
            exit(1);
        }
        pthread_detach(thread);
    }
}

/* How long it takes from before the first of so many keys is added until a worker has the last. */
static int64_t run(long count) {
    char key[24];
    atomic_store(&left, count);
    int64_t begun = now();
    for (long number = 0; number < count; number++) {
        size_t length = (size_t)snprintf(key, sizeof key, "%ld", number);
        OK(coord_reconciler_add(reconciler, key, length, NULL, &err));
    }
    sem_wait(&told);
    return called - begun;
}

/* --- calls --------------------------------------------------------------------------------------------------------- */

static void check(void *held) {
    OK(coord_held_check(held, &err));
}

static void pair(void *lock) {
    coord_held_t *held = NULL;
    OK(coord_lock_acquire(lock, -1, NULL, &held, &err));
    OK(coord_held_release(held, -1, NULL, &err));
    coord_held_destroy(held);
}

static void batched(long batches, long calls, void (*call)(void *), void *argument) {
    for (long batch = 0; batch < batches; batch++) {
        int64_t begun = now();
        for (long number = 0; number < calls; number++) {
            call(argument);
        }
        printf(" %lld", (long long)(now() - begun));
    }
}

/* --- lines --------------------------------------------------------------------------------------------------------- */

static void obey(const char *line, coord_lock_t *lock) {
    long count, other;
    if (sscanf(line, "checks %ld %ld", &count, &other) == 2) {
        coord_held_t *held = NULL;
        OK(coord_lock_acquire(lock, WAIT_MS, NULL, &held, &err));
        printf("checks");
        batched(count, other, check, held);
        OK(coord_held_release(held, WAIT_MS, NULL, &err));
        coord_held_destroy(held);
    } else if (sscanf(line, "pairs %ld %ld", &count, &other) == 2) {
        printf("pairs");
        batched(count, other, pair, lock);
    } else if (sscanf(line, "keys %ld", &count) == 1) {
        printf("keys %lld", (long long)run(count));
    } else if (sscanf(line, "idle %ld %ld", &count, &other) == 2) {
        struct timespec pause = {.tv_sec = other / 1000000, .tv_nsec = other % 1000000 * 1000};
        printf("idle");
        for (long number = 0; number < count; number++) {
            nanosleep(&pause, NULL);
            printf(" %lld", (long long)run(1));
        }
    } else {
        printf("error this is nothing that this program does: %s", line);
    }
    printf("\n");
    fflush(stdout);
}

int main(void) {
    char line[256];
    coord_config_t *config = NULL;
    coord_lock_t *lock = NULL;
    OK(coord_config_new(COORD_ABI_VERSION, "memory:", COORD_NUL, &config, &err));
    OK(coord_client_connect(config, WAIT_MS, NULL, &client, &err));
    coord_config_destroy(config);
    OK(coord_lock_new(client, "bench", COORD_NUL, &lock, &err));
    reconcile();
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        obey(line, lock);
    }
    return 0;
}
