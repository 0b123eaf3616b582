/* The part of the agent that campaigns, leads and looks on. */
#ifndef ELECTIONS_H
#define ELECTIONS_H

#include "agent.h"

/* Each carries out what is its own, and returns 1; or 0. */
int do_with_election(const words_t *words, coord_client_t *client);
int do_with_term(const words_t *words);
int do_with_candidacy(const words_t *words);

/* Makes a term of a campaign whose event has come, and answers. */
void take_term(thing_t *campaign);

/* Ends a candidacy whose function may still run. */
void end_candidacy(thing_t *candidacy);

/* Answers with a leader, or that there is none. */
void say_leader_event(const coord_leader_t *leader);

#endif
