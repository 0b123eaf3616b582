/* A line between conductor and agent: words between single spaces, `name=value` or positional, with %XX for a byte. */
#ifndef WORDS_H
#define WORDS_H

#include <stddef.h>

#define MAX_WORDS 64

/* A line, taken apart in place. */
typedef struct {
    const char *verb;
    size_t count;
    const char *names[MAX_WORDS];
    const char *values[MAX_WORDS];
    size_t lengths[MAX_WORDS];
} words_t;

/* Takes a line apart; writes into it. 0 if it is no line of the protocol. */
int words_parse(char *line, words_t *words);

/* The value of a name, or NULL; its length goes to `length` unless that is NULL, since a value may contain a NUL. */
const char *words_get(const words_t *words, const char *name, size_t *length);

/* An answer is begun with say_ok, say_error or say_fail, goes on with say, and ends with say_end. */
void say_ok(void);
void say_error(const char *code);
void say_fail(const char *message);
void say(const char *name, const char *value);
void say_number(const char *name, long long value);
void say_end(void);

#endif
