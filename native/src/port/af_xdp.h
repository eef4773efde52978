/* af_xdp.h: AF_XDP sockets (Documentation/networking/af_xdp.rst) as ports.
 *
 * The sockets and the frames' memory (UMEM) are the coordinator's; here they are mapped and their rings run. All sockets of a worker share one
 * UMEM, so that forwarding moves a descriptor from one end's receive ring to the other end's transmit ring.
 *
 * Each frame is in one place: free, with the kernel (in a fill ring, being filled, or in a receive ring), or being sent. The ledger behind
 * the frames says which, in shared memory, so that the process that comes after another knows what that one had decided.
 * Internal to src/port.
 */
#ifndef SMOS__AF_XDP_H
#define SMOS__AF_XDP_H

#include "port/port.h"
#include "port/xsk_ring.h"
#include "shardmos/engine.h"

enum { SMOS__XSK_FREE = 0, SMOS__XSK_KERNEL = 1, SMOS__XSK_SENT = 2 };

typedef struct smos__xsk_note { /* of a frame */
    uint8_t where;              /* SMOS__XSK_* */
    uint8_t tried;              /* times that it was received without being settled */
    uint8_t held;               /* named in a receive ring when its process was replaced: not used again before that ring is worked off */
    uint8_t pad;
} smos__xsk_note_t;

#define SMOS__XSK_HEADER 4096u /* of the ledger: redo records, two per socket */

typedef struct smos__xsk {
    int fd;
    smos__xsk_ring_t receive, transmit, fill, completion;
    smos__xsk_redo_t *redo_transmit, *redo_fill;
    uint32_t inherited; /* receive ring: up to here another process had a look at it */
    int refused;        /* errno of the last transmission that the device would not have; 0 */
} smos__xsk_t;

/* Maps the rings of socket x->fd. 0 or an errno. */
int smos__xsk_map(smos__xsk_t *x);
void smos__xsk_unmap(smos__xsk_t *x);
/* Gives the kernel what was published to the transmit ring; returns the number of frames that it took and could not send. */
uint32_t smos__xsk_kick(smos__xsk_t *x);

smos__port_t *smos__xdp_open(const smos_xsk_port_t *, char *error);

#endif
