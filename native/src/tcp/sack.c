/* What selective acknowledgements (RFC 2018) tell a bystander: that the receiver has the same hole as the capture, and when the sender must think that
 * its bytes are lost, not late (RFC 6675). What fills the hole then was sent twice, though the first copy was never seen here. */
#include "tcp/tcp.h"
#include "wire/bytes.h"

#define DUP_THRESH 3u    /* RFC 6675 2 */
#define DEFAULT_MSS 536u /* RFC 9293 3.7.1 */
#define MOST_BLOCKS 4    /* that fit into the options */


typedef struct block {
    uint32_t left, right;
} block_t;


/* The segment's blocks above its acknowledgement, highest first. Below it are duplicates (RFC 2883); the capture may lack what they name. */
static int blocks_of(const smos__layer_t *l, const smos__endpoint_t *sender, block_t blocks[MOST_BLOCKS])
{
    int n = 0;
    for (int i = 0; i < l->sack_blocks && i < MOST_BLOCKS; i++) {
        block_t b = {smos__be32(l->sack + 8 * i), smos__be32(l->sack + 8 * i + 4)};
        if (smos__seq_leq(b.left, l->ack) || smos__seq_leq(b.right, b.left) || smos__seq_gt(b.right, sender->snd_nxt + SMOS__MAX_WINDOW)) continue;
        int at = n++;
        for (; at && smos__seq_gt(b.right, blocks[at - 1].right); at--) blocks[at] = blocks[at - 1];
        blocks[at] = b;
    }
    return n;
}


/* RFC 6675 4, IsLost(): more than DUP_THRESH - 1 segments' worth of bytes, or DUP_THRESH stretches, above a byte that the receiver does not have. */
void smos__tcp_sack(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    smos__endpoint_t *p = &t->flow->end[!from];
    smos__endpoint_cold_t *c = &t->cold->end[!from];
    uint32_t mss = t->cold->end[from].mss ? t->cold->end[from].mss : DEFAULT_MSS;
    block_t blocks[MOST_BLOCKS];
    if (!(p->flags & SMOS__EP_ACKED)) return;
    int n = blocks_of(l, p, blocks);
    uint64_t above = 0;
    for (int i = 0; i < n; i++) {
        above += blocks[i].right - blocks[i].left;
        if (above <= (DUP_THRESH - 1) * (uint64_t)mss && i + 1 < (int)DUP_THRESH) continue;
        if (c->marks & SMOS__MARK_LOSS && smos__seq_leq(blocks[i].left, c->lost_below)) return;
        p->flags &= (uint16_t)~SMOS__EP_RTT; /* the probe's place is needed, and it would measure the recovery (Karn) */
        c->marks |= SMOS__MARK_LOSS;
        c->lost_below = blocks[i].left;
        return;
    }
}


bool smos__tcp_lost(const smos__tcp_t *t, int from, uint32_t seq)
{
    const smos__endpoint_cold_t *c = &t->cold->end[from];
    /* A mark that was passed long ago lies half a number space away at some time. */
    return c->marks & SMOS__MARK_LOSS && c->lost_below - t->flow->end[from].snd_una - 1 < SMOS__MAX_WINDOW && smos__seq_lt(seq, c->lost_below);
}
