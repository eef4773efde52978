/* The hand-over ring. Positions are byte counts that only grow; each side keeps its own in private memory and only publishes it,
 * so whatever the other side writes into the shared header, nobody reads or writes outside the mapping. */
#include "port/handover.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x474e4952534f4d53u /* "SMOSRING", written last */
#define VERSION 1
#define SMALLEST (1u << 20) /* so that the largest frame always fits in half of it */
#define LARGEST (1u << 30)

enum { FRAME = 1, WRAP = 2, EPOCH = 3, CLOCK = 4 };

typedef struct record {
    uint32_t bytes; /* with this header and padding, multiple of 64 */
    uint16_t kind;
    uint8_t end;
    uint8_t pad;
    uint64_t number; /* FRAME; EPOCH: the epoch */
    int64_t time_ns; /* FRAME, CLOCK */
    uint32_t caplen, len, flags;
    uint16_t linktype, port;
    smos__offload_t offload;
    uint32_t token;
} record_t;

#define ALIGN 64u

typedef struct shared {
    _Atomic uint64_t magic;
    uint32_t version;
    uint32_t data_bytes;
    _Alignas(64) _Atomic uint64_t head; /* producer's line */
    _Atomic uint64_t full;
    _Atomic uint32_t ended; /* 1 the end, 2 a failure */
    _Atomic int64_t clock_ns;
    _Alignas(64) _Atomic uint64_t tail; /* consumer's line */
    _Atomic uint64_t taken;             /* behind what was delivered: beyond tail lies what is being worked on */
    _Atomic uint32_t sleeps;
    _Atomic int64_t clock_until_ns; /* the consumer wants to see the clock so long */
    _Alignas(64) char error[SMOS__PORT_ERROR];
} shared_t;

struct smos__ring {
    shared_t *shared;
    uint8_t *data;
    uint64_t bytes; /* of data, a power of two */
    uint64_t head, tail; /* own position, and the other's as last seen */
};

static uint64_t round_up(uint32_t data_bytes)
{
    uint64_t bytes = SMALLEST;
    while (bytes < data_bytes && bytes < LARGEST) bytes *= 2;
    return bytes;
}

size_t smos__ring_bytes(uint32_t data_bytes)
{
    return sizeof(shared_t) + round_up(data_bytes);
}

static smos__ring_t *handle(void *memory, uint64_t bytes)
{
    smos__ring_t *ring = calloc(1, sizeof *ring);
    if (ring == NULL) return NULL;
    ring->shared = memory;
    ring->data = (uint8_t *)memory + sizeof(shared_t);
    ring->bytes = bytes;
    return ring;
}

smos__ring_t *smos__ring_init(void *memory, uint32_t data_bytes)
{
    smos__ring_t *ring = handle(memory, round_up(data_bytes));
    if (ring == NULL) return NULL;
    shared_t *s = ring->shared;
    memset(s, 0, sizeof *s);
    s->version = VERSION;
    s->data_bytes = (uint32_t)ring->bytes;
    atomic_store_explicit(&s->magic, MAGIC, memory_order_release);
    return ring;
}

smos__ring_t *smos__ring_attach(void *memory, size_t bytes)
{
    if (bytes < sizeof(shared_t) + SMALLEST || (uintptr_t)memory % _Alignof(shared_t) != 0) return NULL;
    shared_t *s = memory;
    if (atomic_load_explicit(&s->magic, memory_order_acquire) != MAGIC) return NULL;
    uint64_t data = *(const volatile uint32_t *)&s->data_bytes; /* once: it may change under us */
    if (s->version != VERSION) return NULL;
    if (data < SMALLEST || data > LARGEST || (data & (data - 1)) != 0 || data > bytes - sizeof(shared_t)) return NULL;
    smos__ring_t *ring = handle(memory, data);
    /* a consumer that was started again goes on behind what the one before it had freed */
    if (ring != NULL) ring->tail = ring->head = atomic_load_explicit(&ring->shared->tail, memory_order_acquire);
    return ring;
}

smos__ring_t *smos__ring_open(void *memory, size_t bytes, bool producer, uint64_t *lost)
{
    *lost = 0;
    if (bytes < sizeof(shared_t) + SMALLEST || (uintptr_t)memory % _Alignof(shared_t) != 0) return NULL;
    uint64_t data = SMALLEST;
    while (data * 2 <= bytes - sizeof(shared_t) && data < LARGEST) data *= 2;
    shared_t *s = memory;
    if (atomic_load_explicit(&s->magic, memory_order_acquire) != MAGIC) { /* both sides may get here: they write the same */
        s->version = VERSION;
        s->data_bytes = (uint32_t)data;
        atomic_store_explicit(&s->magic, MAGIC, memory_order_release);
    }
    smos__ring_t *ring = handle(memory, data);
    if (!ring) return NULL;
    uint64_t head = atomic_load_explicit(&s->head, memory_order_acquire), tail = atomic_load_explicit(&s->tail, memory_order_acquire);
    if (producer) {
        ring->head = head;
        ring->tail = tail;
        return ring;
    }
    uint64_t taken = atomic_load_explicit(&s->taken, memory_order_acquire);
    if (taken > tail && taken <= head) { /* who knows which of them it died of */
        *lost = taken - tail;
        tail = taken;
        atomic_store_explicit(&s->tail, tail, memory_order_release);
    }
    ring->head = ring->tail = tail;
    return ring;
}

int smos__ring_sleeps(smos__ring_t *ring)
{
    atomic_store_explicit(&ring->shared->sleeps, 1, memory_order_seq_cst);
    return atomic_load_explicit(&ring->shared->head, memory_order_seq_cst) != ring->tail;
}

void smos__ring_want_clock(smos__ring_t *ring, int64_t until_ns)
{
    atomic_store_explicit(&ring->shared->clock_until_ns, until_ns, memory_order_relaxed);
}

int64_t smos__ring_clock(const smos__ring_t *ring)
{
    return atomic_load_explicit(&ring->shared->clock_ns, memory_order_acquire);
}

bool smos__ring_clock_wanted(const smos__ring_t *ring, int64_t now_ns)
{
    return atomic_load_explicit(&ring->shared->clock_until_ns, memory_order_relaxed) > now_ns;
}

void smos__ring_set_clock(smos__ring_t *ring, int64_t time_ns)
{
    atomic_store_explicit(&ring->shared->clock_ns, time_ns, memory_order_release);
}

bool smos__ring_wants_bell(smos__ring_t *ring)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&ring->shared->sleeps, memory_order_relaxed) && atomic_exchange(&ring->shared->sleeps, 0);
}

void smos__ring_free(smos__ring_t *ring)
{
    free(ring);
}

/* Room for a record of `bytes` that does not wrap; NULL when full. */
static uint8_t *reserve(smos__ring_t *ring, uint32_t bytes)
{
    uint64_t offset = ring->head & (ring->bytes - 1);
    uint64_t skip = ring->bytes - offset < bytes ? ring->bytes - offset : 0;
    if (ring->bytes - (ring->head - ring->tail) < skip + bytes) {
        uint64_t tail = atomic_load_explicit(&ring->shared->tail, memory_order_acquire);
        if (tail >= ring->tail && tail <= ring->head) ring->tail = tail;
        if (ring->bytes - (ring->head - ring->tail) < skip + bytes) return NULL;
    }
    if (skip == 0) return ring->data + offset;
    record_t wrap = { .bytes = (uint32_t)skip, .kind = WRAP };
    memcpy(ring->data + offset, &wrap, sizeof wrap);
    ring->head += skip;
    return ring->data;
}

static int push(smos__ring_t *ring, record_t *record, const uint8_t *data)
{
    record->bytes = (uint32_t)((sizeof *record + record->caplen + ALIGN - 1) & ~(size_t)(ALIGN - 1));
    uint8_t *to = reserve(ring, record->bytes);
    if (to == NULL) {
        shared_t *s = ring->shared;
        atomic_store_explicit(&s->full, atomic_load_explicit(&s->full, memory_order_relaxed) + 1, memory_order_relaxed);
        return 0;
    }
    memcpy(to, record, sizeof *record);
    if (data != NULL && record->caplen > 0) memcpy(to + sizeof *record, data, record->caplen);
    ring->head += record->bytes;
    atomic_store_explicit(&ring->shared->head, ring->head, memory_order_release);
    return 1;
}

int smos__ring_push(smos__ring_t *ring, const smos__frame_t *frame)
{
    uint32_t largest = SMALLEST / 2 - sizeof(record_t); /* no reader delivers more */
    record_t record = { .kind = FRAME, .number = frame->number, .time_ns = frame->time_ns, .caplen = frame->caplen < largest ? frame->caplen : largest,
                        .len = frame->len, .flags = frame->flags, .linktype = frame->linktype, .port = frame->port,
                        .end = frame->end, .offload = frame->offload, .token = frame->token };
    return push(ring, &record, frame->data);
}

int smos__ring_push_epoch(smos__ring_t *ring, uint64_t epoch)
{
    record_t record = { .kind = EPOCH, .number = epoch };
    return push(ring, &record, NULL);
}

int smos__ring_push_clock(smos__ring_t *ring, int64_t time_ns)
{
    record_t record = { .kind = CLOCK, .time_ns = time_ns };
    return push(ring, &record, NULL);
}

void smos__ring_end(smos__ring_t *ring, const char *error)
{
    shared_t *s = ring->shared;
    if (error != NULL) snprintf(s->error, sizeof s->error, "%s", error);
    atomic_store_explicit(&s->ended, error != NULL ? 2 : 1, memory_order_release);
}

uint64_t smos__ring_full(const smos__ring_t *ring)
{
    return atomic_load_explicit(&ring->shared->full, memory_order_relaxed);
}

/* ---- The consumer's port ---- */

#define EMPTY_WAIT_NS 200000

typedef struct ring_port {
    smos__port_t port;
    smos__ring_t *ring;
    int64_t last_ns;
    int64_t clock_ns; /* of the last CLOCK; port.now_ns gets there when the frames before it were received */
    uint64_t packets;
    int failed;
} ring_port_t;

static int fail(ring_port_t *p, const char *error)
{
    snprintf(p->port.error, sizeof p->port.error, "%s", error);
    p->failed = 1;
    return SMOS__PORT_FAILED;
}

/* Copies the record at the consumer's position out, checked against the ring. 1, 0 if there is none, or SMOS__PORT_FAILED. */
static int next_record(ring_port_t *p, record_t *record, const uint8_t **data)
{
    smos__ring_t *ring = p->ring;
    if (ring->head == ring->tail) {
        uint64_t head = atomic_load_explicit(&ring->shared->head, memory_order_acquire);
        if (head == ring->head) return 0;
        if (head - ring->tail > ring->bytes || head % ALIGN != 0) return fail(p, "the hand-over ring is damaged");
        ring->head = head;
    }
    uint64_t offset = ring->tail & (ring->bytes - 1);
    uint64_t limit = ring->head - ring->tail;
    if (limit > ring->bytes - offset) limit = ring->bytes - offset;
    memcpy(record, ring->data + offset, sizeof *record);
    *data = ring->data + offset + sizeof *record;
    if (record->bytes < sizeof *record || record->bytes > limit || record->bytes % ALIGN != 0 || record->caplen > record->bytes - sizeof *record)
        return fail(p, "the hand-over ring is damaged");
    return 1;
}

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    ring_port_t *p = (ring_port_t *)port;
    smos__ring_t *ring = p->ring;
    if (p->failed) return SMOS__PORT_FAILED;
    atomic_store_explicit(&ring->shared->tail, ring->tail, memory_order_release); /* the last burst is done with */
    uint32_t ended = atomic_load_explicit(&ring->shared->ended, memory_order_acquire); /* before looking for records */
    int n = 0, got = 0;
    if (p->clock_ns > port->now_ns) port->now_ns = p->clock_ns;
    while (n < max) {
        record_t r;
        const uint8_t *data;
        if ((got = next_record(p, &r, &data)) != 1) break;
        if (r.kind == EPOCH && n > 0) break; /* rounds do not share a burst */
        if (r.kind == FRAME && n > 0 && p->clock_ns > port->now_ns && r.time_ns < p->clock_ns) break; /* the clock goes before it, and after those we have */
        ring->tail += r.bytes;
        if (r.kind == EPOCH) port->epoch = r.number;
        if (r.kind == CLOCK && r.time_ns > p->clock_ns) p->clock_ns = r.time_ns;
        if (n == 0 && p->clock_ns > port->now_ns) port->now_ns = p->clock_ns;
        if (r.kind != FRAME) continue;
        burst[n] = (smos__frame_t){ .data = data, .caplen = r.caplen, .len = r.len > r.caplen ? r.len : r.caplen, .time_ns = r.time_ns,
                                    .number = r.number, .linktype = r.linktype, .port = r.port, .flags = r.flags, .end = r.end, .offload = r.offload, .token = r.token };
        port->stats.bytes += burst[n].len;
        port->stats.time_backward += p->packets > 0 && r.time_ns < p->last_ns;
        p->last_ns = r.time_ns;
        p->packets++;
        n++;
    }
    port->stats.packets = p->packets;
    if (n > 0) {
        atomic_store_explicit(&ring->shared->taken, ring->tail, memory_order_release);
        return n;
    }
    if (got == SMOS__PORT_FAILED) return got;
    if (ended == 0) return 0;
    if (ended == 1) return SMOS__PORT_END;
    char error[SMOS__PORT_ERROR];
    memcpy(error, ring->shared->error, sizeof error);
    error[sizeof error - 1] = '\0';
    return fail(p, error);
}

static void close_port(smos__port_t *port)
{
    smos__ring_free(((ring_port_t *)port)->ring);
    free(port);
}

smos__port_t *smos__port_open_ring(smos__ring_t *ring, char *error)
{
    ring_port_t *p = calloc(1, sizeof *p);
    if (p == NULL) {
        snprintf(error, SMOS__PORT_ERROR, "out of memory");
        return NULL;
    }
    p->ring = ring;
    p->port.receive = receive;
    p->port.close = close_port;
    p->port.fd = -1;
    p->port.wait_ns = EMPTY_WAIT_NS;
    return &p->port;
}
