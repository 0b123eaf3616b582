/* The descriptor of a queue is readable exactly when the queue is not empty. */
#include "test.h"
#include <fcntl.h>

static int readable(coord_queue_t *queue, int wait_ms) {
    struct pollfd fd = {coord_queue_fd(queue), POLLIN, 0};
    int count = poll(&fd, 1, wait_ms);
    CHECK(count >= 0);
    return count == 1 && (fd.revents & POLLIN) != 0;
}

static void *yield_to(void *queue) {
    coord_queue_yield(queue);
    return NULL;
}

int main(void) {
    coord_client_t *client = connect_as("a");
    coord_queue_t *queue = new_queue();
    int fd = coord_queue_fd(queue);
    CHECK(fd >= 0 && fd == coord_queue_fd(queue));
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK(!readable(queue, 0));
    expect_no_event(queue);

    for (int round = 0; round < 3; round++) {
        for (uint64_t tag = 1; tag <= 5; tag++) {
            OK(coord_client_health_start(client, WAIT_MS, queue, tag, NULL, &err));
        }
        int64_t sum = 0;
        for (int left = 5; left > 0;) {
            CHECK(readable(queue, WAIT_MS));
            coord_event_t *events[3] = {NULL, NULL, NULL};
            size_t count = 0;
            OK(coord_queue_poll_batch(queue, 0, events, 3, &count, &err));
            CHECK(count >= 1 && count <= 3);
            left -= (int)count;
            for (size_t i = 0; i < count; i++) {
                sum += (int64_t)coord_event_tag(events[i]);
                coord_event_destroy(events[i]);
            }
            if (left == 0) CHECK(!readable(queue, 0));
        }
        EQUAL(sum, 15);
    }

    /* A yield ends a poll without an event, and makes nothing readable. */
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, yield_to, queue) == 0);
    coord_event_t *event = NULL;
    FAILS(COORD_E_TIMEOUT, coord_queue_poll(queue, -1, &event, &err));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(!readable(queue, 0));

    coord_queue_destroy(queue);
    EQUAL(coord_queue_fd(queue), -1);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
