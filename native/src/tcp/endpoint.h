/* endpoint.h: the smallest moves of an endpoint, which several files of tcp/ make. */
#ifndef SMOS__ENDPOINT_H
#define SMOS__ENDPOINT_H

#include "tcp/tcp.h"

static inline bool smos__synchronized(uint8_t state) { return state >= SMOS_TCP_ESTABLISHED; }

/* `fact` is noted if it is another state. */
static inline void smos__set_state(smos__endpoint_t *e, uint8_t state, uint32_t *facts, uint32_t fact)
{
    if (e->state == state) return;
    e->state = state;
    *facts |= fact;
}

/* The stream of an end begins at `seq`: the byte after its SYN or, midstream, the first byte seen. */
static inline void smos__set_base(smos__endpoint_t *e, uint32_t seq)
{
    e->isn = seq - 1;
    e->snd_nxt = smos__seq_max(seq, e->flags & SMOS__EP_BASE ? e->snd_nxt : seq);
    e->rcv_nxt = seq;
    e->offset = 0;
    e->flags |= SMOS__EP_BASE;
}

/* Which byte of the stream `seq` is, from 0, however often its numbers have wrapped; negative before the first. */
static inline int64_t smos__place(const smos__endpoint_t *e, uint32_t seq) { return (int64_t)e->offset + smos__seq_diff(seq, e->rcv_nxt); }

#endif
