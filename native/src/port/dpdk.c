/* Queues of DPDK devices (doc.dpdk.org, ethdev and mbuf). Frames are read where the device put them; what passes is the same buffer, given to the
 * other device. Compiled with SMOS_DPDK only.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>

#include "port/af_packet.h"
#include "port/dpdk.h"

#define DEVICES 32
#define DESCRIPTORS 1024
#define CACHE 256          /* buffers that a thread keeps from the pool */
#define LOOK_NS 1000000    /* between two looks at the device's counters */
#define STAMPED_NS 200000  /* between a frame's coming and its being delivered */
#define ONCE_MORE 3        /* tries to transmit what the device had no room for */
#define TAGS 8             /* bytes of VLAN tags that an MTU does not count */

/* A device that is configured and started: shared by the ports on its queues. */
typedef struct device {
    char name[RTE_ETH_NAME_MAX_LEN];
    uint16_t id, queues, mtu;
    int users; /* 0: this place is free */
    struct rte_mempool *pool;
} device_t;

typedef struct end {
    device_t *device;
    struct rte_mbuf *out[SMOS__BURST]; /* to be transmitted out of this end */
    uint32_t lengths[SMOS__BURST];
    bool ours[SMOS__BURST];
    uint16_t waiting;
    uint64_t lost_before; /* by the device's counters, when the port was opened */
} end_t;

typedef struct dpdk {
    smos__port_t port;
    end_t end[2];
    uint16_t queue;
    struct rte_mbuf *held[SMOS__BURST]; /* by token; NULL once forwarded or dropped */
    int holds;
    int turn;
    int64_t looked_ns;
    uint8_t *copies; /* SMOS__BURST places for frames that lie in several buffers */
} dpdk_t;

static device_t devices[DEVICES];
static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;
/* Repeating two bytes makes the hash of both directions equal (Woo, Park: "Scalable TCP session monitoring with symmetric RSS", 2012). */
static uint8_t symmetric_key[64];


int smos_dpdk_init(int argc, const char *const *argv, char *error)
{
    char *words[64];
    int count = 0;
    if (argc < 1 || argc >= 64) return snprintf(error, SMOS_ERROR_SIZE, "DPDK: between 1 and 63 arguments, not %d", argc), -EINVAL;
    for (int i = 0; i < argc; i++) { /* EAL moves and writes what it is given, and keeps it */
        if ((words[count] = strdup(argv[i])) == NULL) return snprintf(error, SMOS_ERROR_SIZE, "DPDK: out of memory"), -ENOMEM;
        count++;
    }
    words[count] = NULL;
    if (rte_eal_init(count, words) >= 0) return 0;
    snprintf(error, SMOS_ERROR_SIZE, "DPDK does not start with these arguments: %s; what it wrote to standard error says why", rte_strerror(rte_errno));
    return -rte_errno;
}


/* ---- devices ---- */

static int refused(char *error, const char *name, const char *what, int status)
{
    snprintf(error, SMOS__PORT_ERROR, "%s: %s: %s", name, what, rte_strerror(-status));
    return status;
}


static int unknown(const char *name, char *error)
{
    char there[160] = "", one[RTE_ETH_NAME_MAX_LEN];
    uint16_t id;
    RTE_ETH_FOREACH_DEV(id) {
        if (rte_eth_dev_get_name_by_port(id, one) || strlen(there) + strlen(one) + 3 > sizeof there) continue;
        strcat(strcat(there, there[0] ? ", " : ""), one);
    }
    snprintf(error, SMOS__PORT_ERROR, "DPDK has no device %.60s; there are: %s", name, there[0] ? there : "none (EAL's -a and --vdev bring them)");
    return -ENODEV;
}


static int configure(const device_t *d, const struct rte_eth_dev_info *info, char *error)
{
    struct rte_eth_conf conf = {0};
    if (d->queues > 1 && info->flow_type_rss_offloads) {
        for (size_t i = 0; i < sizeof symmetric_key; i++) symmetric_key[i] = i % 2 ? 0x5a : 0x6d;
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_key = info->hash_key_size && info->hash_key_size <= sizeof symmetric_key ? symmetric_key : NULL;
        conf.rx_adv_conf.rss_conf.rss_key_len = info->hash_key_size;
        conf.rx_adv_conf.rss_conf.rss_hf = info->flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
    }
    int status = rte_eth_dev_configure(d->id, d->queues, d->queues, &conf);
    return status ? refused(error, d->name, "cannot be configured", status) : 0;
}


static int set_up_queues(device_t *d, uint16_t descriptors, char *error)
{
    uint16_t receive = descriptors, transmit = descriptors;
    int status = rte_eth_dev_adjust_nb_rx_tx_desc(d->id, &receive, &transmit), socket = rte_eth_dev_socket_id(d->id);
    if (status) return refused(error, d->name, "wants other rings", status);
    char name[RTE_MEMPOOL_NAMESIZE];
    snprintf(name, sizeof name, "shardmos-%u", d->id);
    uint32_t buffers = d->queues * (receive + transmit + 4u * SMOS__BURST + CACHE);
    d->pool = rte_pktmbuf_pool_create(name, buffers, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, socket);
    if (!d->pool) return refused(error, d->name, "no memory for its frames; give EAL more with -m, or fewer descriptors", -rte_errno);
    for (uint16_t q = 0; q < d->queues; q++) {
        if ((status = rte_eth_rx_queue_setup(d->id, q, receive, (unsigned)socket, NULL, d->pool))) return refused(error, d->name, "no receive queue", status);
        if ((status = rte_eth_tx_queue_setup(d->id, q, transmit, (unsigned)socket, NULL))) return refused(error, d->name, "no transmit queue", status);
    }
    return 0;
}


static int start(device_t *d, const char *name, const smos_dpdk_port_t *o, char *error)
{
    struct rte_eth_dev_info info;
    *d = (device_t){.queues = o->queues};
    snprintf(d->name, sizeof d->name, "%s", name);
    if (rte_eth_dev_get_port_by_name(name, &d->id)) return unknown(name, error);
    int status = rte_eth_dev_info_get(d->id, &info);
    if (status) return refused(error, name, "says nothing about itself", status);
    uint16_t most = RTE_MIN(info.max_rx_queues, info.max_tx_queues);
    if (o->queues > most) return snprintf(error, SMOS__PORT_ERROR, "%.60s has %u queues for %u shards; give at most %u", name, most, o->queues, most), -EINVAL;
    status = configure(d, &info, error);
    if (!status) status = set_up_queues(d, o->descriptors ? o->descriptors : DESCRIPTORS, error);
    if (!status && (status = rte_eth_dev_start(d->id))) refused(error, name, "does not start", status);
    if (status) {
        rte_mempool_free(d->pool);
        return status;
    }
    if (o->promiscuous || o->device[1]) rte_eth_promiscuous_enable(d->id);
    if (rte_eth_dev_get_mtu(d->id, &d->mtu)) d->mtu = RTE_ETHER_MTU;
    return 0;
}


/* NULL with one line in error. */
static device_t *acquire(const char *name, const smos_dpdk_port_t *o, char *error)
{
    device_t *place = NULL, *found = NULL;
    pthread_mutex_lock(&devices_lock);
    for (int i = 0; i < DEVICES; i++) {
        if (devices[i].users && strcmp(devices[i].name, name) == 0) found = &devices[i];
        if (!devices[i].users && !place) place = &devices[i];
    }
    if (found && found->queues != o->queues) {
        snprintf(error, SMOS__PORT_ERROR, "%.60s has %u queues by its first port, %u by this one", name, found->queues, o->queues);
        found = NULL;
    } else if (!found && !place) {
        snprintf(error, SMOS__PORT_ERROR, "at most %d DPDK devices", DEVICES);
    } else if (!found && !start(place, name, o, error)) {
        found = place;
    }
    if (found) found->users++;
    pthread_mutex_unlock(&devices_lock);
    return found;
}


static void release(device_t *d)
{
    pthread_mutex_lock(&devices_lock);
    if (!--d->users) {
        rte_eth_dev_stop(d->id);
        rte_mempool_free(d->pool);
    }
    pthread_mutex_unlock(&devices_lock);
}


/* ---- receiving ---- */

static uint64_t lost_of(const device_t *d)
{
    struct rte_eth_stats stats;
    return rte_eth_stats_get(d->id, &stats) ? 0 : stats.imissed + stats.ierrors + stats.rx_nombuf;
}


static void look(dpdk_t *p, int64_t now)
{
    p->looked_ns = now;
    if (p->queue) return; /* they are the whole device's: the first queue tells them */
    for (int i = 0; i < p->port.ends; i++) {
        uint64_t lost = lost_of(p->end[i].device);
        p->port.stats.dropped += lost - p->end[i].lost_before;
        p->end[i].lost_before = lost;
    }
}


static void deliver(dpdk_t *p, int which, struct rte_mbuf *m, int64_t now, smos__frame_t *burst, int *n)
{
    if (m->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED && rte_vlan_insert(&m)) goto Lost;
    uint32_t length = rte_pktmbuf_pkt_len(m);
    if (length > SMOS__LARGEST_FRAME) goto Lost;
    const uint8_t *data = m->nb_segs == 1 ? rte_pktmbuf_mtod(m, const uint8_t *) : rte_pktmbuf_read(m, 0, length, p->copies + (size_t)*n * SMOS__LARGEST_FRAME);
    if (!data) goto Lost;
    p->held[*n] = m;
    burst[*n] = (smos__frame_t){.data = data, .caplen = length, .len = length, .time_ns = now, .number = ++p->port.stats.packets, .linktype = 1, .end = (uint8_t)which, .token = (uint32_t)*n};
    p->port.stats.bytes += length;
    ++*n;
    return;
Lost:
    p->port.stats.dropped++;
    rte_pktmbuf_free(m);
}


static void take(dpdk_t *p, int which, int64_t now, smos__frame_t *burst, int *n, int max)
{
    struct rte_mbuf *got[SMOS__BURST];
    uint16_t count = rte_eth_rx_burst(p->end[which].device->id, p->queue, got, (uint16_t)max);
    for (uint16_t i = 0; i < count; i++) rte_prefetch0(rte_pktmbuf_mtod(got[i], void *));
    for (uint16_t i = 0; i < count; i++) deliver(p, which, got[i], now, burst, n);
}


static void flush(smos__port_t *port);


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    dpdk_t *p = (dpdk_t *)port;
    int n = 0;
    for (int i = 0; i < p->holds; i++) rte_pktmbuf_free(p->held[i]); /* NULL: it has gone on */
    if (max > SMOS__BURST) max = SMOS__BURST;
    int64_t now = smos__host_ns();
    p->turn = port->ends == 2 && !p->turn; /* neither end starves the other */
    take(p, p->turn, now, burst, &n, port->ends == 2 ? (max + 1) / 2 : max);
    if (port->ends == 2 && n < max) take(p, !p->turn, now, burst, &n, max - n);
    p->holds = n;
    if (now - p->looked_ns > LOOK_NS) look(p, now);
    if (n) return n;
    flush(port);
    port->now_ns = now;
    port->clear_ns = now - STAMPED_NS;
    return 0;
}


/* ---- transmitting ---- */

static void flush_end(dpdk_t *p, end_t *e)
{
    smos__port_stats_t *stats = &p->port.stats;
    uint16_t sent = 0;
    for (int i = 0; i <= ONCE_MORE && sent < e->waiting; i++)
        sent += rte_eth_tx_burst(e->device->id, p->queue, e->out + sent, (uint16_t)(e->waiting - sent));
    for (uint16_t i = 0; i < e->waiting; i++) {
        if (i >= sent) {
            rte_pktmbuf_free(e->out[i]);
            *(e->ours[i] ? &stats->unsent : &stats->lost_full) += 1;
        } else if (e->ours[i]) {
            stats->sent++;
            stats->sent_bytes += e->lengths[i];
        } else {
            stats->forwarded++;
            stats->forwarded_bytes += e->lengths[i];
        }
    }
    e->waiting = 0;
}


static void transmit(dpdk_t *p, end_t *e, struct rte_mbuf *m, bool ours)
{
    if (e->waiting == SMOS__BURST) flush_end(p, e);
    e->lengths[e->waiting] = rte_pktmbuf_pkt_len(m);
    e->ours[e->waiting] = ours;
    e->out[e->waiting++] = m;
}


/* Of a frame that is not the device's. NULL: it does not fit a buffer (problem -EMSGSIZE), or there is none (-ENOBUFS). */
static struct rte_mbuf *copy(const end_t *e, const uint8_t *data, uint32_t length, int *problem)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(e->device->pool);
    void *room = m && length <= rte_pktmbuf_tailroom(m) ? rte_pktmbuf_append(m, (uint16_t)length) : NULL;
    *problem = m ? -EMSGSIZE : -ENOBUFS;
    if (room) return memcpy(room, data, length), m;
    rte_pktmbuf_free(m);
    return NULL;
}


static void forward(smos__port_t *port, smos__frame_t *frame)
{
    dpdk_t *p = (dpdk_t *)port;
    end_t *out = &p->end[!frame->end];
    int problem = 0;
    bool handed = frame->flags & SMOS__FRAME_HANDED;
    struct rte_mbuf *m = handed ? copy(out, frame->data, frame->len, &problem) : p->held[frame->token];
    if (!handed) p->held[frame->token] = NULL;
    if (!m) {
        *(problem == -EMSGSIZE ? &port->stats.lost_size : &port->stats.lost_full) += 1;
    } else if (frame->len > (uint32_t)out->device->mtu + RTE_ETHER_HDR_LEN + TAGS) {
        port->stats.lost_size++;
        rte_pktmbuf_free(m);
    } else {
        m->ol_flags = 0; /* what the one device said of it is no order to the other */
        transmit(p, out, m, false);
    }
}


static void drop(smos__port_t *port, smos__frame_t *frame)
{
    dpdk_t *p = (dpdk_t *)port;
    if (frame->flags & SMOS__FRAME_HANDED) return;
    rte_pktmbuf_free(p->held[frame->token]);
    p->held[frame->token] = NULL;
}


static int send_ours(smos__port_t *port, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    dpdk_t *p = (dpdk_t *)port;
    end_t *out = &p->end[end & 1];
    int problem = -EMSGSIZE;
    (void)like; /* frames of devices come without anything left to be done */
    struct rte_mbuf *m = length < RTE_ETHER_HDR_LEN || length > (uint32_t)out->device->mtu + RTE_ETHER_HDR_LEN + TAGS ? NULL : copy(out, data, length, &problem);
    if (!m) return port->stats.unsent++, problem;
    transmit(p, out, m, true);
    return 0;
}


static void flush(smos__port_t *port)
{
    dpdk_t *p = (dpdk_t *)port;
    for (int i = 0; i < port->ends; i++)
        if (p->end[i].waiting) flush_end(p, &p->end[i]);
}


/* ---- opening and closing ---- */

static void close_port(smos__port_t *port)
{
    dpdk_t *p = (dpdk_t *)port;
    flush(port);
    for (int i = 0; i < p->holds; i++) rte_pktmbuf_free(p->held[i]);
    for (int i = 0; i < 2; i++)
        if (p->end[i].device) release(p->end[i].device);
    free(p->copies);
    free(p);
}


smos__port_t *smos__dpdk_open(const smos_dpdk_port_t *o, char *error)
{
    if (!o->device[0] || !o->queues || o->queue >= o->queues || (o->device[1] && strcmp(o->device[0], o->device[1]) == 0))
        return snprintf(error, SMOS__PORT_ERROR, "a DPDK port needs a device, or two that differ, and a queue below their number"), NULL;
    dpdk_t *p = calloc(1, sizeof *p);
    if (!p) return snprintf(error, SMOS__PORT_ERROR, "out of memory"), NULL;
    p->port = (smos__port_t){.receive = receive, .close = close_port, .fd = -1, .ends = o->device[1] ? 2 : 1};
    p->queue = o->queue;
    p->copies = malloc((size_t)SMOS__BURST * SMOS__LARGEST_FRAME);
    if (!p->copies) return snprintf(error, SMOS__PORT_ERROR, "out of memory"), close_port(&p->port), NULL;
    for (int i = 0; i < p->port.ends; i++) {
        p->end[i].device = acquire(o->device[i], o, error);
        if (!p->end[i].device) return close_port(&p->port), NULL;
        p->end[i].lost_before = lost_of(p->end[i].device);
    }
    if (p->port.ends == 2) {
        p->port.forward = forward;
        p->port.drop = drop;
        p->port.send = send_ours;
        p->port.flush = flush;
    }
    return &p->port;
}
