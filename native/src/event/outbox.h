/* outbox.h: events on their way to the coordinator: a bounded buffer that becomes one msgpack array (docs/protocol.md). */
#ifndef SMOS__OUTBOX_H
#define SMOS__OUTBOX_H

#include "event/msgpack.h"
#include "shardmos/shardmos.h"
#include "tcp/tcp.h"

typedef struct smos__outbox {
    smos__packer_t packer; /* first five bytes: the array's head, written when it is taken */
    uint32_t events;
    uint32_t worker;
    uint64_t published, lost; /* ever */
    uint8_t *taken; /* the other half of the double buffer */
} smos__outbox_t;

int smos__outbox_init(smos__outbox_t *, uint32_t bytes, uint32_t worker); /* 0, -ENOMEM */
void smos__outbox_free(smos__outbox_t *);
uint32_t smos__outbox_take(smos__outbox_t *, const uint8_t **data); /* bytes, 0 if empty; valid until the next take */
static inline bool smos__outbox_wants_emptying(const smos__outbox_t *o) { return o->packer.used > o->packer.size / 2; }

/* 0, or -ENOBUFS (counted): the queue is full. */
int smos__outbox_anomaly(smos__outbox_t *, int64_t time_ns, const char *anomaly, smos_flow_t flow, const smos_tuple_t *, const smos__conflict_t *); /* conflict may be NULL */
int smos__outbox_module(smos__outbox_t *, int64_t time_ns, const char *module, const char *topic, smos_flow_t flow, const void *data, uint32_t length);
int smos__outbox_log(smos__outbox_t *, int64_t time_ns, const char *module, int level, const char *text);

#endif
