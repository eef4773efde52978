/* away.h: a port without an interface. */
#ifndef SMOS__AWAY_H
#define SMOS__AWAY_H

#include "port/port.h"

/* `ends` as the port that it stands for has. NULL with one line in error. */
smos__port_t *smos__away_open(int ends, char *error);

#endif
