/* Makes the mistake that it is asked for, to show that the sanitizers see it. */
#include <coord.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **arguments) {
    volatile int number = INT_MAX;
    char *volatile bytes = malloc(8);
    if (count != 2 || coord_version() == 0 || bytes == NULL) return 0;
    if (strcmp(arguments[1], "overflow") == 0) bytes[8] = 1;
    if (strcmp(arguments[1], "undefined") == 0) number = number + 1;
    if (strcmp(arguments[1], "leak") == 0) bytes = NULL;
    free(bytes);
    return 0;
}
