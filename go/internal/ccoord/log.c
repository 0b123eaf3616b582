/* The log of the library, as packets: a callback may come from any thread, and this one never runs Go code, waits or
 * raises a signal. A line for which there is no room is lost. */

#include "log.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The room of one packet; what is longer is cut. */
enum { ROOM = 8192 };

static size_t put(char *buffer, size_t at, const char *text) {
    size_t length = strlen(text);
    if (length > ROOM - at)
        length = ROOM - at;
    memcpy(buffer + at, text, length);
    return at + length;
}

static void line(int32_t level, const char *target, const char *message, void *user_data) {
    char buffer[ROOM];
    size_t length = 0;
    buffer[length++] = (char)level;
    length = put(buffer, length, target);
    if (length < ROOM)
        buffer[length++] = '\0';
    length = put(buffer, length, message);
    (void)send((int)(intptr_t)user_data, buffer, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void end(void *user_data) { close((int)(intptr_t)user_data); }

coord_status_t coord_go_log_to(int32_t level, int fd, coord_error_t **err) {
    if (fd < 0)
        return coord_log_set_callback(COORD_LOG_OFF, NULL, NULL, NULL, err);
    return coord_log_set_callback(level, line, (void *)(intptr_t)fd, end, err);
}
