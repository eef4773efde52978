/* commit.h: between commit.c and what changes templates. */
#ifndef SMOS__COMMIT_H
#define SMOS__COMMIT_H

#include "event/events.h"

/* What the socket's template wants is what flows to come begin with. -ENOSPC, -ENOMEM: as before. */
int smos__events_settle(smos__events_t *, smos__socket_t *);
void smos__events_give_set(smos__events_t *, uint32_t flow, uint16_t set);

#endif
