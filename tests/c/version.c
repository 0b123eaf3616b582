/* The library says which it is, and every status has a name. */
#include "test.h"

int main(void) {
    char text[32];
    uint32_t version = coord_version();
    EQUAL(version, COORD_VERSION);
    EQUAL(coord_abi_version(), COORD_ABI_VERSION);
    snprintf(text, sizeof text, "%u.%u.%u", version >> 16, version >> 8 & 0xff, version & 0xff);
    SAME_TEXT(coord_version_string(), text);

    SAME_TEXT(coord_status_name(COORD_OK), "Ok");
    SAME_TEXT(coord_status_name(COORD_E_TIMEOUT), "Timeout");
    SAME_TEXT(coord_status_name(-12345), "Unknown");
    EQUAL(coord_status_is_retryable(COORD_E_TIMEOUT), 1);
    EQUAL(coord_status_is_retryable(COORD_E_HANDLE), 0);
    EQUAL(coord_error_class(COORD_E_NOT_FOUND), 1);
    EQUAL(coord_error_class(COORD_E_FORBIDDEN), 5);
    EQUAL(coord_error_class(COORD_E_TIMEOUT), 0);
    SAME_TEXT(coord_loss_name(COORD_LOSS_BROKEN), "Broken");

    char name[COORD_NAME_SIZE];
    OK(coord_name_sanitize("plain", COORD_NUL, name, sizeof name, &err));
    SAME_TEXT(name, "plain");
    OK(coord_name_sanitize("a b/c", COORD_NUL, name, sizeof name, &err));
    CHECK(strncmp(name, "a-b-c", 5) == 0 && strlen(name) > 5);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_name_sanitize("plain", COORD_NUL, name, 5, &err));
    return 0;
}
