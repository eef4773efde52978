/* af_packet.h: Linux packet sockets (packet(7), Documentation/networking/packet_mmap.rst) as ports.
 *
 * The sockets are the coordinator's: it opens, binds and configures them, and they outlive the process that maps their rings. A process that
 * comes after another goes on where that one was: what it had decided is done, and a frame that it died of twice is let go.
 * Internal to src/port.
 */
#ifndef SMOS__AF_PACKET_H
#define SMOS__AF_PACKET_H

#include <linux/if_packet.h>
#include <linux/virtio_net.h>

#include "port/port.h"
#include "shardmos/engine.h"

#define SMOS__LARGEST_FRAME 65664u /* the largest super packet, its Ethernet header and tags, rounded up */

/* What is sent out of one end: queued as pointers, handed to the kernel in one call by flush. */
typedef struct smos__transmit {
    int fd;
    int count;
    smos__port_stats_t *stats;
    struct virtio_net_hdr headers[SMOS__BURST];
    uint32_t lengths[SMOS__BURST];
    const uint8_t *data[SMOS__BURST];
    bool ours[SMOS__BURST];
} smos__transmit_t;

/* `data` stays valid until smos__transmit_flush. Flushes by itself when the queue is full. */
void smos__transmit_queue(smos__transmit_t *, const uint8_t *data, uint32_t length, const smos__offload_t *, bool ours);
void smos__transmit_flush(smos__transmit_t *);

/* Puts the tag that the kernel took out back in front of the ether type; data[-4..] must be writable. Returns the frame's new start. */
uint8_t *smos__vlan_back(uint8_t *data, uint16_t tpid, uint16_t tci);

/* Takes away the socket's pending error (link down), which poll would show for ever. */
void smos__packet_clear(int fd);
int64_t smos__host_ns(void); /* CLOCK_REALTIME, as the kernel stamps frames */

/* Passive: TPACKET_V3, a block at a time. Inline: two TPACKET_V2 rings. NULL with one line in error. */
smos__port_t *smos__blocks_open(const smos_packet_port_t *, char *error);
smos__port_t *smos__pair_open(const smos_packet_port_t *, char *error);

#endif
