/* multi.h: several ports as one, each burst in order of time. A frame's `port` says which of them it came from and goes back to. */
#ifndef SMOS__MULTI_H
#define SMOS__MULTI_H

#include "port/port.h"

#define SMOS__MULTI_PORTS 288 /* devices, and the rings of all other workers */

smos__port_t *smos__multi_open(char *error); /* NULL: out of memory, or of descriptors */
/* Owns the port from now on. 0; -ENOSPC and the like with one line in error, the port stays the caller's then. */
int smos__multi_add(smos__port_t *multi, smos__port_t *port, char *error);
/* Puts a port in the place of another, which is closed; its counts go on. As smos__multi_add. */
int smos__multi_replace(smos__port_t *multi, int place, smos__port_t *port, char *error);
/* While order is kept, whoever else owns a frame of a device gets it before it waits here: `route` says whether it is to be delivered here at all. */
void smos__multi_set_route(smos__port_t *multi, bool (*route)(void *context, smos__frame_t *), void *context);
/* From now on frames are always in order of time over all members, not only while some are handed over. */
void smos__multi_keep_order(smos__port_t *multi);
bool smos__port_is_multi(const smos__port_t *);

#endif
