/* What the programs of abuse share: values that are no handles, texts that are none, and out-parameters that nothing may
 * be written to. */
#ifndef COORD_ABUSE_H
#define COORD_ABUSE_H

#include "test.h"

#define UNTOUCHED ((void *)(uintptr_t)0x5a5a5a5a)

/* Calls `abuse` with values that were never handles. */
static UNUSED void with_made_up_handles(void (*abuse)(const void *), const void *live) {
    long on_stack = 0;
    void *on_heap = malloc(64);
    const void *made_up[] = {NULL, (void *)1, (void *)2, (void *)0xdeadbeef, (void *)UINTPTR_MAX, (void *)(uintptr_t)0x3f,
                             &on_stack, on_heap, (char *)on_heap + 1, (void *)((uintptr_t)live ^ ((uintptr_t)1 << 40)),
                             (void *)((uintptr_t)live | ((uintptr_t)0x3fffff << 11)), "text"};
    for (size_t i = 0; i < sizeof made_up / sizeof *made_up; i++) abuse(made_up[i]);
    free(on_heap);
}

/* Calls `abuse` with texts that cannot be read. */
static UNUSED void with_unreadable_texts(void (*abuse)(const char *, size_t)) {
    abuse("a\xff", 2);
    abuse("\xc3", 1);
    abuse("\xed\xa0\x80", COORD_NUL);
    abuse("a", COORD_NUL - 1);
    abuse("a", COORD_NUL / 2);
    abuse("a", (size_t)1 << 40);
}

/* Calls `abuse` with names that can be read and are none. */
static UNUSED void with_bad_names(void (*abuse)(const char *, size_t)) {
    static char long_text[10001];
    memset(long_text, 'a', 10000);
    abuse("", 0);
    abuse("", COORD_NUL);
    abuse(long_text, 10000);
    abuse(long_text, COORD_NUL);
    abuse("a b", 3);
    abuse("/", 1);
    abuse("a\0b", 3);
}

#endif
