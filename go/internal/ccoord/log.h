#ifndef COORD_GO_LOG_H
#define COORD_GO_LOG_H

#include <coord.h>

/* Sends every line of the library's log up to `level` as one packet to the socket `fd`, and closes it when no more
 * come. -1 for `fd` ends the log. */
coord_status_t coord_go_log_to(int32_t level, int fd, coord_error_t **err);

#endif
