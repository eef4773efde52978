#include "tcp/zeek.h"

#include <string.h>

#include "wire/packet.h"

_Static_assert(sizeof(smos__zeek_t) == 64, "one cache line");

enum {
    SAW_SYN = 1, SAW_FIN = 2, SAW_RST = 4, SAW_FIN_RST = 8, SAW_DATA = 16, SAW_ACK = 32, SAW_MULTI = 64,
    FIN_COUNTED = 128 /* a FIN with or without its letter: the span ends before it */
};

#define FAR_JUMP (1 << 20) /* a SYN or RST this far from the stream's end is not trusted to move it */

/* `end` is z->end[from]. */
static void add_letter(smos__zeek_end_t *end, char *history, int from, char letter)
{
    uint8_t *length = &end[-from].letters;
    if (*length + 1 < SMOS_HISTORY_MAX) history[(*length)++] = from == SMOS_CLIENT ? (char)(letter - 'a' + 'A') : letter;
}

static void once(smos__zeek_end_t *end, char *history, int from, uint8_t bit, char letter)
{
    if (!(end->seen & bit)) {
        end->seen |= bit;
        add_letter(end, history, from, letter);
    }
}

/* Whether the n-th time is one that gets a letter. */
static bool power_of_ten(uint32_t n)
{
    return n == 1 || n == 10 || n == 100 || n == 1000 || n == 10000;
}

static void count16(smos__zeek_end_t *end, uint16_t *counter, char *history, int from, char letter)
{
    if (*counter < UINT16_MAX && power_of_ten(++*counter))
        add_letter(end, history, from, letter);
}

static void count8(smos__zeek_end_t *end, uint8_t *counter, char *history, int from, char letter)
{
    if (*counter < UINT8_MAX && power_of_ten(++*counter))
        add_letter(end, history, from, letter);
}

static void enter(smos__zeek_end_t *end, unsigned state)
{
    if (end->state != state) {
        end->before = end->state;
        end->state = (uint8_t)(state & 0xf);
    }
}

static uint64_t last_of(const smos__zeek_end_t *end) { return (uint64_t)end->last_high << 32 | end->last; }
static uint64_t acked_of(const smos__zeek_end_t *end) { return (uint64_t)end->acked_high << 32 | end->acked; }

/* The signed distance of a sequence number from a position of the endpoint (its low bits), modulo 2^32. */
static int32_t distance(const smos__zeek_end_t *end, uint32_t seq, uint32_t position)
{
    return (int32_t)(seq - (end->base + position));
}

/* A position moves forward. */
static void move(uint32_t *low, uint16_t *high, int32_t ahead)
{
    *low += (uint32_t)ahead;
    *high = (uint16_t)(*high + (*low < (uint32_t)ahead));
}

static void rebase(smos__zeek_end_t *end, uint32_t base, uint32_t last)
{
    end->base = base;
    end->acked = end->acked_high = 0;
    end->last = last;
    end->last_high = 0;
}

/* Where the endpoint's numbering begins: at its first packet, and again when a SYN shows that it was wrong. */
static void place(smos__zeek_end_t *end, const smos__zeek_segment_t *s, uint32_t length)
{
    bool syn = s->flags & SMOS__SYN;
    switch (end->state) {
    case SMOS__ZEEK_INACTIVE:
        if (syn)
            rebase(end, s->seq, length);
        else
            rebase(end, s->seq - 1, 1); /* as if the SYN stood before; 1, so that this segment is no retransmission */
        break;
    case SMOS__ZEEK_SYN_SENT:
    case SMOS__ZEEK_SYN_ACK_SENT:
        if (syn && s->seq != end->base)
            rebase(end, s->seq, length);
        break;
    case SMOS__ZEEK_PARTIAL:
    case SMOS__ZEEK_ESTABLISHED:
        if (syn)
            rebase(end, s->seq, length);
        break;
    case SMOS__ZEEK_RESET: /* the RST that began it may have been forged */
        if (syn && end->before == SMOS__ZEEK_INACTIVE)
            rebase(end, s->seq, length);
        break;
    default:
        break;
    }
}

static void repeated(smos__zeek_end_t *end, char *history, int from, uint8_t bit, char letter, bool moved)
{
    if (!(end->seen & bit) || moved) {
        end->seen |= bit;
        add_letter(end, history, from, letter);
    }
}

static void control_letters(smos__zeek_end_t *end, char *history, const smos__zeek_segment_t *s, uint16_t position)
{
    int control = s->flags & (SMOS__SYN | SMOS__FIN | SMOS__RST);
    if (control == SMOS__SYN) {
        repeated(end, history, s->from, SAW_SYN, s->flags & SMOS__ACK ? 'h' : 's', end->syn != position);
        end->syn = position;
    } else if (control == SMOS__FIN) {
        uint16_t at = (uint16_t)(position + s->payload_len); /* the FIN stands after the data */
        repeated(end, history, s->from, SAW_FIN, 'f', end->fin != at);
        end->fin = at;
    } else if (control == SMOS__RST) {
        repeated(end, history, s->from, SAW_RST, 'r', end->rst != position);
        end->rst = position;
    } else if ((control & (SMOS__FIN | SMOS__RST)) == (SMOS__FIN | SMOS__RST)) {
        once(end, history, s->from, SAW_FIN_RST, 'i');
    } else {
        once(end, history, s->from, SAW_MULTI, 'q');
    }
}

static void take_ack(smos__zeek_end_t *peer, const smos__zeek_segment_t *s)
{
    if (peer->state == SMOS__ZEEK_INACTIVE) { /* it has sent nothing we saw: number it from here */
        rebase(peer, s->ack - 1, 0);
        return;
    }
    if (s->flags & SMOS__RST)
        return;
    int32_t ahead = distance(peer, s->ack, peer->acked);
    if (ahead > 0 && !(s->ack == 0 && ahead > FAR_JUMP)) /* a 0 far away is no acknowledgement number but an unset field */
        move(&peer->acked, &peer->acked_high, ahead);
}

static void take_seq(smos__zeek_end_t *end, char *history, const smos__zeek_segment_t *s, uint32_t after)
{
    int32_t ahead = distance(end, after, end->last);
    if ((s->flags & (SMOS__SYN | SMOS__RST)) && (ahead > FAR_JUMP || ahead < -FAR_JUMP))
        return;
    if ((s->flags & SMOS__FIN) && last_of(end) == 1)
        end->last = after - end->base; /* SYN and FIN alone were captured: 2 GiB and more may lie between */
    else if (end->state == SMOS__ZEEK_RESET)
        return;
    else if (ahead > 0)
        move(&end->last, &end->last_high, ahead);
    else if (s->payload_len)
        count16(end, &end->rexmits, history, s->from, 't');
}

static void from_inactive(smos__zeek_end_t *end, smos__zeek_end_t *peer, const smos__zeek_segment_t *s)
{
    bool client = s->from == SMOS_CLIENT;
    if (s->flags & SMOS__SYN) {
        if (client) {
            enter(end, s->flags & SMOS__ACK ? SMOS__ZEEK_SYN_ACK_SENT : SMOS__ZEEK_SYN_SENT);
        } else { /* with or without ACK: a simultaneous open is taken as established, too */
            if (peer->state == SMOS__ZEEK_SYN_SENT)
                enter(peer, SMOS__ZEEK_ESTABLISHED);
            enter(end, SMOS__ZEEK_ESTABLISHED);
        }
    }
    if (s->flags & SMOS__FIN)
        enter(end, SMOS__ZEEK_CLOSED);
    if (s->flags & SMOS__RST)
        enter(end, SMOS__ZEEK_RESET);
    if (end->state != SMOS__ZEEK_INACTIVE)
        return;
    if (!client && s->payload_len == 0 && peer->state == SMOS__ZEEK_SYN_SENT)
        return; /* some servers acknowledge the SYN before they answer it */
    enter(end, (s->flags & SMOS__ACK) && peer->state == SMOS__ZEEK_ESTABLISHED ? SMOS__ZEEK_ESTABLISHED : SMOS__ZEEK_PARTIAL);
}

static void advance(smos__zeek_end_t *end, smos__zeek_end_t *peer, const smos__zeek_segment_t *s)
{
    switch (end->state) {
    case SMOS__ZEEK_INACTIVE:
        from_inactive(end, peer, s);
        break;
    case SMOS__ZEEK_SYN_SENT:
    case SMOS__ZEEK_SYN_ACK_SENT:
        if (s->flags & SMOS__FIN)
            enter(end, SMOS__ZEEK_CLOSED);
        if (s->flags & SMOS__RST)
            enter(end, SMOS__ZEEK_RESET);
        break;
    case SMOS__ZEEK_PARTIAL:
    case SMOS__ZEEK_ESTABLISHED:
        if ((s->flags & (SMOS__SYN | SMOS__ACK)) == SMOS__SYN && end->state == SMOS__ZEEK_PARTIAL && peer->state == SMOS__ZEEK_INACTIVE)
            enter(end, SMOS__ZEEK_SYN_SENT);
        if ((s->flags & (SMOS__FIN | SMOS__RST)) == SMOS__FIN) {
            enter(end, SMOS__ZEEK_CLOSED);
            if (peer->state == SMOS__ZEEK_RESET && peer->before == SMOS__ZEEK_CLOSED)
                enter(peer, SMOS__ZEEK_CLOSED); /* FIN then RST, answered by a FIN: an ordinary end */
        }
        if (s->flags & SMOS__RST)
            enter(end, SMOS__ZEEK_RESET);
        break;
    case SMOS__ZEEK_CLOSED:
        if ((s->flags & SMOS__RST) && peer->state != SMOS__ZEEK_CLOSED)
            enter(end, SMOS__ZEEK_RESET);
        break;
    default:
        break;
    }
}

static bool clean(const smos__zeek_end_t *end)
{
    return end->state == SMOS__ZEEK_ESTABLISHED || (end->state == SMOS__ZEEK_CLOSED && end->before == SMOS__ZEEK_ESTABLISHED);
}

void smos__zeek_init(smos__zeek_t *z, char history[SMOS_HISTORY_MAX], bool flipped)
{
    memset(z, 0, sizeof *z);
    memset(history, 0, SMOS_HISTORY_MAX);
    if (flipped)
        history[z->end[0].letters++] = '^';
}

__attribute__((noinline)) static void any_segment(smos__zeek_t *z, char history[SMOS_HISTORY_MAX], const smos__zeek_segment_t *s)
{
    smos__zeek_end_t *end = &z->end[s->from], *peer = &z->end[!s->from];
    int control = s->flags & (SMOS__SYN | SMOS__FIN | SMOS__RST);
    uint32_t length = s->flags & SMOS__RST ? 0 : s->payload_len; /* data in a RST is a message, not stream */
    length += !!(s->flags & SMOS__SYN);
    length += !!(s->flags & SMOS__FIN);

    if (control || end->state == SMOS__ZEEK_INACTIVE)
        place(end, s, length);
    if (control)
        control_letters(end, history, s, (uint16_t)(s->seq - end->base));
    else if (s->payload_len)
        once(end, history, s->from, SAW_DATA, 'd');
    else if (s->flags & SMOS__ACK)
        once(end, history, s->from, SAW_ACK, 'a');
    if (s->window == 0 && !(s->flags & SMOS__RST) && peer->state != SMOS__ZEEK_CLOSED && end->state != SMOS__ZEEK_RESET)
        count16(end, &end->zero_windows, history, s->from, 'w');
    if (s->flags & SMOS__FIN)
        end->seen |= FIN_COUNTED;
    uint64_t acked = acked_of(peer);
    if (s->flags & SMOS__ACK)
        take_ack(peer, s);
    take_seq(end, history, s, s->seq + length);
    if (control || end->state == SMOS__ZEEK_INACTIVE)
        advance(end, peer, s);
    if (peer->hole && acked_of(peer) > acked) { /* after the state's change: a gap that a RST reveals is not noted */
        peer->hole = 0;
        smos__zeek_gap(z, history, !s->from);
    }
}

/* Most are data or acknowledgements between two established ends: for them the same is said shorter, and without branches that could not be foretold. */
void smos__zeek_segment(smos__zeek_t *z, char history[SMOS_HISTORY_MAX], const smos__zeek_segment_t *s)
{
    smos__zeek_end_t *end = z->end + s->from, *peer = z->end + !s->from;
    bool usual = (s->flags & (SMOS__SYN | SMOS__FIN | SMOS__RST | SMOS__ACK)) == SMOS__ACK && s->window && s->ack;
    if (!usual || end->state != SMOS__ZEEK_ESTABLISHED || peer->state != SMOS__ZEEK_ESTABLISHED || peer->hole) {
        any_segment(z, history, s);
        return;
    }
    int32_t ahead = distance(peer, s->ack, peer->acked);
    move(&peer->acked, &peer->acked_high, ahead > 0 ? ahead : 0);
    ahead = distance(end, s->seq + s->payload_len, end->last);
    if (ahead <= 0 && s->payload_len) {
        any_segment(z, history, s);
        return;
    }
    move(&end->last, &end->last_high, ahead > 0 ? ahead : 0);
    uint8_t bit = s->payload_len ? SAW_DATA : SAW_ACK, letters = z->end[0].letters;
    char letter = s->payload_len ? 'D' : 'A';
    if (s->from == SMOS_SERVER) letter += 'a' - 'A';
    if (end->seen & bit || letters + 1 >= SMOS_HISTORY_MAX) letter = 0;
    history[letters] = letter; /* where there is none, the text's end */
    z->end[0].letters = (uint8_t)(letters + !!letter);
    end->seen |= bit;
}

void smos__zeek_bad_checksum(smos__zeek_t *z, char history[SMOS_HISTORY_MAX], int from)
{
    count8(&z->end[from], &z->end[from].checksums, history, from, 'c');
}

bool smos__zeek_gap(smos__zeek_t *z, char history[SMOS_HISTORY_MAX], int sender)
{
    if (!clean(&z->end[0]) || !clean(&z->end[1]))
        return false;
    count8(&z->end[sender], &z->end[sender].gaps, history, sender, 'g');
    return true;
}

bool smos__zeek_hole(smos__zeek_t *z, int sender)
{
    z->end[sender].hole = 1;
    return clean(&z->end[0]) && clean(&z->end[1]);
}

void smos__zeek_datagram(smos__zeek_t *z, char history[SMOS_HISTORY_MAX], int from)
{
    z->end[from].state = SMOS__ZEEK_ESTABLISHED;
    once(&z->end[from], history, from, SAW_DATA, 'd');
}

/* The client gave up its SYN: ^? S, then a RST of the client's before anything else of it but more SYNs and data. */
static bool reset_before_answer(const char *history)
{
    if (*history == '^')
        history++;
    if (*history++ != 'S')
        return false;
    history += strcspn(history, "HAFGIQR");
    return *history == 'R';
}

static const char *tcp_state(const smos__zeek_t *z, const char *history)
{
    unsigned client = z->end[SMOS_CLIENT].state, server = z->end[SMOS_SERVER].state;
    bool no_client = client == SMOS__ZEEK_INACTIVE || client == SMOS__ZEEK_PARTIAL;
    bool no_server = server == SMOS__ZEEK_INACTIVE || server == SMOS__ZEEK_PARTIAL;

    if (server == SMOS__ZEEK_RESET) {
        if (client == SMOS__ZEEK_SYN_SENT || client == SMOS__ZEEK_SYN_ACK_SENT)
            return "REJ";
        if (client == SMOS__ZEEK_RESET && smos__zeek_span(z, SMOS_CLIENT) == 0 && smos__zeek_span(z, SMOS_SERVER) == 0)
            return "REJ";
        return no_client ? "RSTRH" : "RSTR";
    }
    if (client == SMOS__ZEEK_RESET) {
        if (no_server)
            return reset_before_answer(history) ? "RSTOS0" : "OTH";
        return "RSTO";
    }
    if (client == SMOS__ZEEK_CLOSED && server == SMOS__ZEEK_CLOSED)
        return "SF";
    if (client == SMOS__ZEEK_CLOSED)
        return no_server ? "SH" : "S2";
    if (server == SMOS__ZEEK_CLOSED)
        return no_client ? "SHR" : "S3";
    if (client == SMOS__ZEEK_SYN_SENT && server == SMOS__ZEEK_INACTIVE)
        return "S0";
    if (client == SMOS__ZEEK_ESTABLISHED && server == SMOS__ZEEK_ESTABLISHED)
        return "S1";
    return "OTH";
}

const char *smos__zeek_conn_state(const smos__zeek_t *z, const char history[SMOS_HISTORY_MAX], int proto)
{
    enum { ICMP = 1, TCP = 6, UDP = 17, ICMP6 = 58 };
    if (proto == TCP)
        return tcp_state(z, history);
    if (proto == UDP) {
        bool client = z->end[SMOS_CLIENT].state, server = z->end[SMOS_SERVER].state;
        return client ? (server ? "SF" : "S0") : (server ? "SHR" : "OTH");
    }
    return proto == ICMP || proto == ICMP6 ? "OTH" : "";
}

uint64_t smos__zeek_span(const smos__zeek_t *z, int side)
{
    const smos__zeek_end_t *end = &z->end[side], *peer = &z->end[!side];
    if (end->before == SMOS__ZEEK_SYN_SENT && end->state == SMOS__ZEEK_RESET && peer->state == SMOS__ZEEK_INACTIVE && acked_of(end) > 1)
        return 0; /* an old half-open connection's numbers: nothing of this one was sent */
    uint64_t last = last_of(end), acked = acked_of(end), span = last > acked ? last : acked;
    span -= span != 0; /* the SYN */
    span -= span != 0 && (end->seen & FIN_COUNTED);
    return span;
}
