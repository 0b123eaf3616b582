/* A client counts what it does: one write per acquire and one per release. */
#include "test.h"

static int64_t stat_of(coord_client_t *client, int32_t stat) {
    coord_stats_t *stats = NULL;
    OK(coord_client_stats(client, &stats, &err));
    int64_t value = coord_stats_value(stats, stat);
    coord_stats_destroy(stats);
    return value;
}

int main(void) {
    coord_client_t *client = connect_as("counted");
    coord_lock_t *lock = lock_of(client, "a");
    EQUAL(stat_of(client, COORD_STAT_GRANTS), 0);
    int64_t before = stat_of(client, COORD_STAT_STORE_CLAIM_STEPS);
    coord_held_t *held = acquire(lock);
    EQUAL(stat_of(client, COORD_STAT_GRANTS), 1);
    EQUAL(stat_of(client, COORD_STAT_HELD), 1);
    release(held);
    EQUAL(stat_of(client, COORD_STAT_HELD), 0);
    EQUAL(stat_of(client, COORD_STAT_STORE_CLAIM_STEPS) - before, 2);
    int32_t count = 0;
    while (coord_stat_name(count)[0] != 0) CHECK(stat_of(client, count++) >= -1);
    EQUAL(count, COORD_STAT_STORE_READS + 1);
    EQUAL(stat_of(client, count), -1);
    EQUAL(stat_of(client, -1), -1);
    coord_lock_destroy(lock);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
