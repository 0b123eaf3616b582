/* After the last handle is gone, so are the library's threads and descriptors. */
#include "test.h"
#include <dirent.h>

static int entries(const char *path) {
    int count = 0;
    DIR *directory = opendir(path);
    CHECK(directory != NULL);
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

static void ignore(coord_event_t *event, void *user_data) {
    (void)user_data;
    coord_event_destroy(event);
}

static void use(int close) {
    coord_client_t *client = connect_as("passing");
    coord_queue_t *queue = new_queue(), *called = new_queue();
    coord_lock_t *lock = lock_of(client, "a");
    coord_held_t *held = acquire(lock);
    coord_session_t *session = NULL;
    OK(coord_queue_set_callback(called, ignore, NULL, NULL, &err));
    OK(coord_client_session(client, &session, &err));
    OK(coord_client_session_wait_start(client, session, queue, 1, NULL, &err));
    OK(coord_held_wait_lost_start(held, called, 2, NULL, &err));
    OK(coord_lock_acquire_start(lock, -1, queue, 3, NULL, &err));
    CHECK(coord_queue_fd(queue) >= 0);
    CHECK(coord_debug_thread_count() > 0);
    if (close) {
        coord_held_destroy(held);
        OK(coord_client_close(client, WAIT_MS, &err));
    }
    coord_queue_destroy(queue);
    coord_queue_destroy(called);
    coord_session_destroy(session);
    coord_lock_destroy(lock);
    if (!close) coord_held_destroy(held);
    coord_client_destroy(client);
}

int main(void) {
    EQUAL(coord_debug_thread_count(), 0);
    /* Once for what the process keeps for good, such as the C library's own. */
    use(1);
    EVENTUALLY(coord_debug_thread_count() == 0);
    EVENTUALLY(entries("/proc/self/task") == 3);
    int descriptors = entries("/proc/self/fd");
    for (int i = 0; i < 6; i++) use(i % 2);
    EVENTUALLY(coord_debug_thread_count() == 0);
    EVENTUALLY(entries("/proc/self/task") == 3); /* ".", ".." and this thread */
    EVENTUALLY(entries("/proc/self/fd") <= descriptors);
    return 0;
}
