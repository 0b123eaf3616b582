/* The C worker of the demo: worker URL LEDGER UNTIL_NS [STUCK_NS]

   Appends entries to the ledger, each under the lock, until that moment. From STUCK_NS on, it stops in the middle of
   its next entry and says so: there it is killed. src/ledger.rs says what an entry looks like. */
#define _POSIX_C_SOURCE 200809L
#include <coord.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void fail(coord_error_t *error) {
    fprintf(stderr, "worker: %s\n", coord_error_message(error));
    exit(1);
}

/* Closes the entry of a holder that died in the middle of it. */
static void mend(int ledger) {
    char last = '\n';
    off_t size = lseek(ledger, 0, SEEK_END);
    if (size > 0 && pread(ledger, &last, 1, size - 1) == 1 && last != '\n') {
        dprintf(ledger, " torn\n");
    }
}

/* Two halves with a pause between them: another writer in the pause would be seen in the ledger. */
static void append(int ledger, coord_held_t *held, int stuck, coord_error_t **error) {
    const struct timespec moment = {0, 300000};
    mend(ledger);
    dprintf(ledger, "entry %lld C %ld %lld", (long long)coord_held_token(held), (long)getpid(), now_ns());
    if (stuck) {
        printf("stuck\n");
        fflush(stdout);
        pause();
    }
    nanosleep(&moment, NULL);
    if (coord_held_check(held, error) == COORD_OK) {
        dprintf(ledger, " %lld end\n", now_ns());
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        return 2;
    }
    long long until = atoll(argv[3]), stuck = argc > 4 ? atoll(argv[4]) : INT64_MAX;
    coord_error_t *error = NULL;
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    coord_lock_t *lock = NULL;
    if (coord_config_new(COORD_ABI_VERSION, argv[1], COORD_NUL, &config, &error) != COORD_OK ||
        coord_client_connect(config, 30000, NULL, &client, &error) != COORD_OK ||
        coord_lock_new(client, "demo/ledger", COORD_NUL, &lock, &error) != COORD_OK) {
        fail(error);
    }
    int ledger = open(argv[2], O_RDWR | O_CREAT | O_APPEND, 0644);
    while (ledger >= 0 && now_ns() < until) {
        coord_held_t *held = NULL;
        if (coord_lock_acquire(lock, -1, NULL, &held, &error) != COORD_OK) {
            fail(error);
        }
        append(ledger, held, now_ns() >= stuck, &error);
        if (error != NULL || coord_held_release(held, -1, NULL, &error) != COORD_OK) {
            fail(error);
        }
        coord_held_destroy(held);
    }
    coord_status_t closed = coord_client_close(client, 10000, &error);
    coord_lock_destroy(lock);
    coord_client_destroy(client);
    coord_config_destroy(config);
    if (closed != COORD_OK) {
        fail(error);
    }
    return ledger < 0;
}
