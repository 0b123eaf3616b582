/* The part of the agent that reconciles: takes runs one by one as the story says, or serves them all. */
#ifndef RECONCILERS_H
#define RECONCILERS_H

#include "agent.h"

/* Each carries out what is its own, and returns 1; or 0. */
int do_with_reconciler(const words_t *words);
int do_reconcile(const words_t *words, coord_client_t *client);

/* Ends a reconciler that may still be served. */
void end_reconciler(thing_t *reconciler);

#endif
