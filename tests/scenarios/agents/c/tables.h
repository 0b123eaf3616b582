/* The part of the agent for tables: documents cross as the conductor has them, in JSON. */
#ifndef TABLES_H
#define TABLES_H

#include "agent.h"

/* Carries out a command about a table, a watch, a log or a copy, and returns 1; or 0 if it is none. */
int do_with_table(const words_t *words);

#endif
