/* The part of the agent for owners, providers and observers. */
#ifndef SERVICES_H
#define SERVICES_H

#include "agent.h"

/* Each carries out what is its own, and returns 1; or 0. */
int do_with_services(const words_t *words, coord_client_t *client);
int do_with_feed(const words_t *words);

#endif
