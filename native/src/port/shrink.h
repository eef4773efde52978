/* shrink.h: mapped files that become shorter while they are read. What lies beyond the new end raises SIGBUS at the first look; of a mapping that is
 * watched it reads as zeros instead, and its owner is told.
 *
 * One handler for the process, installed with the first watch and never taken out. What it is not about goes to who had the signal before.
 */
#ifndef SMOS__SHRINK_H
#define SMOS__SHRINK_H

#include <stddef.h>

/* From now on *shrunk becomes 1 when a look at map..map + bytes finds the file shorter; that rest of the mapping is zeros from then on.
 * A number for unwatch(), or -1 where too many are watched: then nothing is done. */
int smos__shrink_watch(const void *map, size_t bytes, volatile int *shrunk);
void smos__shrink_unwatch(int watch); /* before the mapping goes; -1 is fine */

#endif
