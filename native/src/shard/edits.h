/* edits.h: packets that middleboxes change, and packets of our own.
 *
 * The engine follows an edited flow in *edited* numbers, those that receivers see (edit/splice.h). What comes in is translated before its handlers see
 * it, sequence numbers and payload; what goes out has its acknowledgement translated back to the numbers of who gets it. Flows that nobody edits pay
 * one bit in the slow way.
 */
#ifndef SMOS__EDITS_H
#define SMOS__EDITS_H

#include "edit/splice.h"
#include "flow/alias.h"
#include "wire/packet.h"

#define SMOS__EDIT_ROOM (160 * 1024)               /* of the packet under the hand */
#define SMOS__EDITED_FLOWS_BYTES (UINT64_C(256) << 20) /* of all edited flows together */

/* What edited flows keep. */
typedef struct smos__flow_edits {
    smos__splice_t by[2]; /* what each end sends */
    bool reset;           /* RSTs went out */
} smos__flow_edits_t;

/* The link layer of one direction of a flow, for packets of our own. */
typedef struct smos__link {
    uint8_t length; /* 0: not seen */
    uint8_t end;    /* of the port, where such packets come in */
    uint8_t header[30];
} smos__link_t;

typedef struct smos__edits {
    bool active;              /* the packet under the hand lies in `buffer` */
    smos__frame_t frame;      /* then: it, as edited */
    uint8_t *buffer;          /* SMOS__EDIT_ROOM, made when first needed; behind it as much again for building */
    smos__flow_edits_t **flow; /* by slot */
    smos__link_t (*link)[2];  /* by slot and sender; only for ports that can send */
    uint64_t bytes;           /* of edited flows */
    smos__aliases_t aliases;
} smos__edits_t;

struct smos_shard;

void smos__edits_free(struct smos_shard *);
/* Whatever is kept of a flow that ends. */
void smos__edits_forget(struct smos_shard *, uint32_t flow);
/* Makes the packet under the hand one that may be changed. -EPERM: there is none; -EOPNOTSUPP: fragments put together, packets within tunnels or not
 * captured whole; -ENOMEM. */
int smos__edit_begin(struct smos_shard *);
/* The flow's own record of edits, made when first asked for. NULL: out of bounds or memory. */
smos__flow_edits_t *smos__edits_of(struct smos_shard *, uint32_t flow);
/* smos__splice_add() within what all edited flows may hold: 0, -ENOSPC, -ENOMEM. */
int smos__edit_add(struct smos_shard *, smos__splice_t *, uint32_t at, uint32_t removed, const uint8_t *text, uint32_t length, bool behind);

/* A packet of an edited flow comes in: the sender's numbers and bytes become the receiver's. false: it cannot be, drop it. */
bool smos__edit_entry(struct smos_shard *, uint32_t flow, smos__layer_t *, int from);
/* And goes out: its acknowledgement becomes one in the numbers of who gets it. */
void smos__edit_exit(struct smos_shard *, uint32_t flow, smos__layer_t *, int from);
/* After the SENDER hook: an edit of addresses or ports is the flow's name beyond the box. */
void smos__edit_translated(struct smos_shard *, uint32_t flow, const smos__layer_t *, int from);
/* Keeps the link layer of the first packet of each end. */
void smos__edit_note_link(struct smos_shard *, uint32_t flow, const smos__frame_t *, const smos__layer_t *, int from);
/* SMOS__EDIT_ROOM bytes for building a packet in; NULL: out of memory. */
uint8_t *smos__edit_room(struct smos_shard *);
/* Sends the edited packet out of `end`, cut in two where it grew beyond what fits. */
void smos__edit_send(struct smos_shard *, int end, const smos__frame_t *original);
/* Sends a packet of our own into the flow. As api->inject. */
int smos__inject(struct smos_shard *, uint32_t flow, const smos_injection_t *);
/* RSTs to both ends, once. */
void smos__send_resets(struct smos_shard *, uint32_t flow);

#endif
