/* calls.h: how the engine's events become calls of Python handlers, without a Python frame of ours in between.
 *
 * A smos_py_call_t is the `arg` of a registration, a user-defined event or a timer. Python makes it (shardmos/workers/calls.py) and keeps it
 * and every object that it names alive for as long as the engine may call; the numbers are the objects' addresses. The GIL is held
 * (the shard's bracket took it).
 */
#ifndef SHARDMOS_CALLS_H
#define SHARDMOS_CALLS_H

#include "shardmos/engine.h"

typedef enum smos_py_kind {
    SMOS_PY_BARE = 0,   /* callable() */
    SMOS_PY_FLOW = 1,   /* callable(flow) */
    SMOS_PY_PACKET = 2, /* callable(flow, packet), packet None where none caused the event */
    SMOS_PY_DATA = 3,   /* callable(flow, data), a memoryview that is released afterwards */
    SMOS_PY_OTHER = 4   /* callable(flow, argument()) */
} smos_py_kind_t;

/* What all calls of one middlebox share. */
typedef struct smos_py_host {
    const smos_call_t *current; /* the call under way, NULL between calls */
    uintptr_t packet;           /* object for SMOS_PY_PACKET */
    uintptr_t views;            /* list: memoryviews that were made of the packet during the call */
    uintptr_t release;          /* callable(callable): releases those and empties the list */
    uintptr_t failed;           /* callable(event, exception): a handler raised */
    uintptr_t kept;             /* callable(event, callable): a part of `data` outlived the call */
    uintptr_t exporter;         /* of the memoryviews; made when first needed, owned */
    int ended;                  /* 1: an interrupt ended the run, nothing is called any more */
} smos_py_host_t;

typedef struct smos_py_call {
    smos_py_host_t *host;
    uintptr_t callable;
    uintptr_t flows;    /* dict: handle to the object that handlers get */
    uintptr_t make;     /* callable(handle): makes it, where the dict has none */
    uintptr_t argument; /* callable() for SMOS_PY_OTHER */
    uint32_t kind;
    uint32_t event;     /* built-in, for messages */
} smos_py_call_t;

/* A handler, and a predicate: call->arg is a smos_py_call_t. */
void smos_py_call(void *self, const smos_call_t *call);
int smos_py_ask(void *self, const smos_call_t *call);

/* Lets what the host owns go. */
void smos_py_host_clear(smos_py_host_t *);

#endif
