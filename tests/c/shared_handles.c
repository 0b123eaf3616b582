/* Handles that several threads use and destroy at once give errors, never a crash, and leave the lock free. */
#include "test.h"

#define THREADS 4
#define ROUNDS 300

static coord_client_t *client;
static coord_lock_t *lock;
static coord_held_t *shared;
static coord_queue_t *queue;
static pthread_barrier_t together;

static int is_expected(coord_status_t status) {
    return status == COORD_OK || status == COORD_E_HANDLE || status == COORD_E_NOT_HELD;
}

static void *contend(void *number) {
    for (int round = 0; round < ROUNDS; round++) {
        if (number == NULL) {
            shared = acquire(lock);
            queue = new_queue();
        }
        pthread_barrier_wait(&together);
        coord_held_t *held = shared;
        coord_queue_t *events = queue;
        coord_event_t *event = NULL;
        CHECK(is_expected(coord_held_check(held, NULL)));
        CHECK(is_expected(coord_held_wait_lost_start(held, events, 1, NULL, NULL)));
        if (round % 2 == 0) CHECK(is_expected(coord_held_release(held, WAIT_MS, NULL, NULL)));
        coord_queue_poll(events, 0, &event, NULL);
        coord_event_destroy(event);
        coord_held_destroy(held);
        coord_queue_destroy(events);
        EQUAL(coord_held_check(held, NULL), COORD_E_HANDLE);
        EQUAL(coord_held_token(held), 0);
        EQUAL(coord_queue_fd(events), -1);
        pthread_barrier_wait(&together);
    }
    return NULL;
}

int main(void) {
    client = connect_as("a");
    lock = lock_of(client, "a");
    pthread_t threads[THREADS];
    static int numbers[THREADS];
    CHECK(pthread_barrier_init(&together, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, contend, i == 0 ? NULL : &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    release(acquire(lock));
    coord_lock_destroy(lock);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
