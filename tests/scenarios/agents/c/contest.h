/* Many grants in a row: rounds under a lock that leave a trace in a file, and cancels that race grants. */
#ifndef CONTEST_H
#define CONTEST_H

#include <coord.h>

/* Takes the lock `rounds` times, and each time counts one up in a file, in two steps that another one between them
   would spoil. NULL, or what went wrong. Blocks. */
const char *contest_rounds(coord_lock_t *lock, long rounds, const char *file);

/* Lets a release and a cancel of the next waiter happen at the same time, `rounds` times. `name` is the lock's. The
   events go through `queue`, which must be empty. */
coord_status_t contest_races(coord_client_t *client, coord_lock_t *lock, const char *name, long rounds,
                             coord_queue_t *queue, long *granted, long *cancelled, coord_error_t **err);

#endif
