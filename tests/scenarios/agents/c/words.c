#define _POSIX_C_SOURCE 200809L
#include "words.h"

#include <stdio.h>
#include <string.h>

static int hex(char digit) {
    const char *digits = "0123456789ABCDEF0123456789abcdef";
    const char *found = digit == '\0' ? NULL : strchr(digits, digit);
    return found == NULL ? -1 : (int)((found - digits) % 16);
}

/* Decodes in place; the text only gets shorter. */
static int decode(char *text, size_t *length) {
    char *out = text;
    for (const char *in = text; *in != '\0'; in++) {
        if (*in != '%') {
            *out++ = *in;
            continue;
        }
        int high = hex(in[1]);
        int low = high < 0 ? -1 : hex(in[2]);
        if (low < 0) {
            return 0;
        }
        *out++ = (char)(high * 16 + low);
        in += 2;
    }
    *length = (size_t)(out - text);
    *out = '\0';
    return 1;
}

int words_parse(char *line, words_t *words) {
    memset(words, 0, sizeof *words);
    line[strcspn(line, "\r\n")] = '\0';
    char *rest = NULL;
    for (char *word = strtok_r(line, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(word, '=');
        if (value == NULL) {
            words->verb = word;
            continue;
        }
        if (words->count == MAX_WORDS) {
            return 0;
        }
        *value++ = '\0';
        words->names[words->count] = word;
        words->values[words->count] = value;
        if (!decode(value, &words->lengths[words->count])) {
            return 0;
        }
        words->count++;
    }
    return words->verb != NULL;
}

const char *words_get(const words_t *words, const char *name, size_t *length) {
    for (size_t i = 0; i < words->count; i++) {
        if (strcmp(words->names[i], name) == 0) {
            if (length != NULL) {
                *length = words->lengths[i];
            }
            return words->values[i];
        }
    }
    return NULL;
}

static void encoded(const char *text) {
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        int plain = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
                    strchr("._-/:@,+", byte) != NULL;
        if (plain) {
            putchar(byte);
        } else {
            printf("%%%02X", byte);
        }
    }
}

void say_ok(void) { fputs("ok", stdout); }

void say_error(const char *code) { printf("error %s", code); }

void say_fail(const char *message) {
    fputs("fail", stdout);
    say("message", message);
}

void say(const char *name, const char *value) {
    printf(" %s=", name);
    encoded(value == NULL ? "" : value);
}

void say_number(const char *name, long long value) { printf(" %s=%lld", name, value); }

void say_end(void) {
    putchar('\n');
    fflush(stdout);
}
