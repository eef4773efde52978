/* The whole order of events (docs/events.md): two stream sockets A and B of one chain and a raw socket R over a connection's life, from both ends. It is
 * mOS's order with what is mended: a retransmitted SYN is REXMIT, a dropped packet does not reach its receiver, and NEW_DATA has the packet that brought it. */
#include <errno.h>
#include <stdarg.h>

#include "conversation.h"

static const smos_api_t *api;
static char trace[16384];
static uint64_t last; /* packet that was traced */
static int dropper; /* number of the packet that A drops at the SENDER hook */

static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t used = strlen(trace);
    vsnprintf(trace + used, sizeof trace - used, format, args);
    va_end(args);
}

/* "A:PKT@s/c": socket A, PKT_IN, SENDER hook, side client. */
static void note(void *self, const smos_call_t *c)
{
    static const char *const NAMES[] = {"PKT", "START", "SETUP", "DATA", "REXMIT", "STATE", "GAP", "ANOMALY", "ERROR", "END", "ORPHAN"};
    uint64_t number = c->packet ? c->packet->number : 0;
    if (number != last) say("\n%d", (int)number);
    last = number;
    say(" %s:%s%s/%s", (const char *)c->arg, NAMES[c->event], c->hook == SMOS_SENDER ? "@s" : c->hook == SMOS_RECEIVER ? "@r" : "", c->side == SMOS_CLIENT ? "c" : "s");
    if (c->event == SMOS_STATE_CHANGE) say(">%s", api->state_name(c->detail));
    if (c->event == SMOS_NEW_DATA) say("=%d+%d", (int)c->offset, (int)c->length);
    if (c->event == SMOS_GAP) say("=%d+%d", (int)c->offset, (int)c->length);
    if (dropper && number == (uint64_t)dropper && *(const char *)c->arg == 'A' && c->hook == SMOS_SENDER) CHECK_EQ(api->drop(self), 0);
}

static void listen_to_all(smos_engine_t *e, smos_sock_t sock, const char *name)
{
    for (uint32_t event = 0; event < SMOS_EVENT_COUNT; event++) {
        int hooks = smos__default_hooks(event) ? SMOS_SENDER | SMOS_RECEIVER : 0;
        if (event != SMOS_ANOMALY) CHECK_EQ(api->register_handler(e, sock, 0, event, hooks, SMOS_BOTH, note, (void *)(uintptr_t)name), 0);
    }
}

static const char *traced(talk_t *t, bool two, bool raw, uint8_t midstream)
{
    api = smos_shard_api();
    trace[0] = '\0';
    last = UINT64_MAX;
    smos_shard_t *s = shard_of_talk(t);
    s->config.midstream = midstream;
    smos_engine_t *e = smos_shard_engine(s);
    smos_module_t m = {SMOS_MODULE_HEADER, .name = "trace"};
    smos_box_t *box = module_of(s, &m);
    smos_shard_use(s, box);
    smos_sock_t sock;
    listen_to_all(e, 0, "A");
    if (two) {
        CHECK_EQ(api->socket(e, SMOS_STREAM, &sock), 0);
        listen_to_all(e, sock, "B");
    }
    if (raw) {
        CHECK_EQ(api->socket(e, SMOS_RAW, &sock), 0);
        CHECK_EQ(api->register_handler(e, sock, 0, SMOS_PKT_IN, 0, SMOS_BOTH, note, (void *)(uintptr_t)"R"), 0);
    }
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
    return trace;
}

/* 1-3 the handshake, 4 the SYN again, 5-6 data both ways, 7 behind a hole, 8 fills it, 9-11 the close. */
static talk_t *life(void)
{
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__SYN, 100, 0, "");
    segment(t, 0, 0, SMOS__ACK | SMOS__PSH, 101, 501, "hello");
    segment(t, 0, 1, SMOS__ACK | SMOS__PSH, 501, 106, "world");
    segment(t, 0, 0, SMOS__ACK | SMOS__PSH, 109, 506, "def");
    segment(t, 0, 0, SMOS__ACK | SMOS__PSH, 106, 506, "abc");
    goodbye(t, 0, 11, 5);
    return t;
}

static void test_one_socket(void)
{
    CHECK_STR(traced(life(), false, false, 0),
              "\n1 A:PKT@s/c A:START@s/c A:STATE@s/c>SYN_SENT A:START@r/s A:PKT@r/s A:STATE@r/s>SYN_RECEIVED"
              "\n2 A:PKT@s/s A:PKT@r/c A:STATE@r/c>ESTABLISHED"
              "\n3 A:PKT@s/c A:PKT@r/s A:SETUP@r/s A:STATE@r/s>ESTABLISHED"
              "\n4 A:PKT@s/c A:REXMIT@s/c A:REXMIT@r/s A:PKT@r/s"
              "\n5 A:PKT@s/c A:DATA/s=0+5 A:PKT@r/s"
              "\n6 A:PKT@s/s A:DATA/c=0+5 A:PKT@r/c"
              "\n7 A:PKT@s/c A:PKT@r/s"
              "\n8 A:PKT@s/c A:DATA/s=5+3 A:DATA/s=8+3 A:PKT@r/s"
              "\n9 A:PKT@s/c A:STATE@s/c>FIN_WAIT_1 A:PKT@r/s A:STATE@r/s>CLOSE_WAIT"
              "\n10 A:PKT@s/s A:STATE@s/s>LAST_ACK A:PKT@r/c A:STATE@r/c>TIME_WAIT"
              "\n11 A:PKT@s/c A:PKT@r/s A:STATE@r/s>CLOSED"
              "\n0 A:END/c A:END/s");
}

/* Each event goes down the chain for packets of the client, up the chain for those of the server; the raw socket is first. */
static void test_two_sockets_and_a_raw_one(void)
{
    CHECK_STR(traced(life(), true, true, 0),
              "\n1 R:PKT/c A:PKT@s/c B:PKT@s/c A:START@s/c B:START@s/c A:STATE@s/c>SYN_SENT B:STATE@s/c>SYN_SENT"
              " A:START@r/s B:START@r/s A:PKT@r/s B:PKT@r/s A:STATE@r/s>SYN_RECEIVED B:STATE@r/s>SYN_RECEIVED"
              "\n2 R:PKT/c B:PKT@s/s A:PKT@s/s B:PKT@r/c A:PKT@r/c B:STATE@r/c>ESTABLISHED A:STATE@r/c>ESTABLISHED"
              "\n3 R:PKT/c A:PKT@s/c B:PKT@s/c A:PKT@r/s B:PKT@r/s A:SETUP@r/s B:SETUP@r/s A:STATE@r/s>ESTABLISHED B:STATE@r/s>ESTABLISHED"
              "\n4 R:PKT/c A:PKT@s/c B:PKT@s/c A:REXMIT@s/c B:REXMIT@s/c A:REXMIT@r/s B:REXMIT@r/s A:PKT@r/s B:PKT@r/s"
              "\n5 R:PKT/c A:PKT@s/c B:PKT@s/c A:DATA/s=0+5 B:DATA/s=0+5 A:PKT@r/s B:PKT@r/s"
              "\n6 R:PKT/c B:PKT@s/s A:PKT@s/s B:DATA/c=0+5 A:DATA/c=0+5 B:PKT@r/c A:PKT@r/c"
              "\n7 R:PKT/c A:PKT@s/c B:PKT@s/c A:PKT@r/s B:PKT@r/s"
              "\n8 R:PKT/c A:PKT@s/c B:PKT@s/c A:DATA/s=5+3 B:DATA/s=5+3 A:DATA/s=8+3 B:DATA/s=8+3 A:PKT@r/s B:PKT@r/s"
              "\n9 R:PKT/c A:PKT@s/c B:PKT@s/c A:STATE@s/c>FIN_WAIT_1 B:STATE@s/c>FIN_WAIT_1 A:PKT@r/s B:PKT@r/s A:STATE@r/s>CLOSE_WAIT B:STATE@r/s>CLOSE_WAIT"
              "\n10 R:PKT/c B:PKT@s/s A:PKT@s/s B:STATE@s/s>LAST_ACK A:STATE@s/s>LAST_ACK B:PKT@r/c A:PKT@r/c B:STATE@r/c>TIME_WAIT A:STATE@r/c>TIME_WAIT"
              "\n11 R:PKT/c A:PKT@s/c B:PKT@s/c A:PKT@r/s B:PKT@r/s A:STATE@r/s>CLOSED B:STATE@r/s>CLOSED"
              "\n0 A:END/c B:END/c A:END/s B:END/s");
}

/* A drops the client's data: B, which comes behind it, and the receiver do not see it. B is before A for the server's packet, and has seen it. */
static void test_a_drop_ends_the_packet(void)
{
    dropper = 5;
    CHECK(strstr(traced(life(), true, false, 0), "\n5 A:PKT@s/c\n6 ") != NULL);
    dropper = 6;
    CHECK(strstr(traced(life(), true, false, 0), "\n6 B:PKT@s/s A:PKT@s/s\n7 ") != NULL);
    dropper = 0;
}

/* 4 acknowledges bytes that are not in the capture, 5 comes behind them: told with the next data. Then a RST, and at the end what waited. */
static void test_gaps_and_a_reset(void)
{
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 1, SMOS__ACK, 501, 111, "");
    segment(t, 0, 0, SMOS__ACK, 111, 501, "after");
    segment(t, 0, 0, SMOS__ACK, 120, 501, "behind a hole");
    segment(t, 0, 1, SMOS__RST | SMOS__ACK, 501, 116, "");
    const char *text = traced(t, false, false, 0);
    CHECK_STR(strstr(text, "\n4"),
              "\n4 A:PKT@s/s A:PKT@r/c"
              "\n5 A:PKT@s/c A:GAP/s=0+10 A:DATA/s=10+5 A:PKT@r/s"
              "\n6 A:PKT@s/c A:PKT@r/s"
              "\n7 A:PKT@s/s A:STATE@s/s>CLOSED A:PKT@r/c A:STATE@r/c>CLOSED"
              "\n0 A:GAP/s=15+4 A:DATA/s=19+13 A:END/c A:END/s");
}

/* Without a SYN: followed from the middle, or an orphan. */
static void test_midstream_and_orphans(void)
{
    talk_t *t = talk();
    segment(t, 0, 1, SMOS__ACK, 501, 101, "x");
    CHECK_STR(traced(t, true, true, 0),
              "\n1 R:PKT/c A:PKT@s/c B:PKT@s/c A:START@s/c B:START@s/c A:STATE@s/c>ESTABLISHED B:STATE@s/c>ESTABLISHED"
              " A:START@r/s B:START@r/s A:DATA/s=0+1 B:DATA/s=0+1 A:PKT@r/s B:PKT@r/s A:STATE@r/s>ESTABLISHED B:STATE@r/s>ESTABLISHED"
              "\n0 A:END/c B:END/c A:END/s B:END/s");
    t = talk();
    segment(t, 0, 1, SMOS__ACK, 501, 101, "x");
    CHECK_STR(traced(t, true, true, 1), "\n1 R:PKT/c A:ORPHAN/c B:ORPHAN/c");
}

static void test_datagrams(void)
{
    talk_t *t = talk();
    datagram(t, 0, 0, 5);
    datagram(t, 0, 1, 5);
    CHECK_STR(traced(t, true, true, 0),
              "\n1 R:PKT/c A:PKT@s/c B:PKT@s/c A:START@s/c B:START@s/c A:START@r/s B:START@r/s A:PKT@r/s B:PKT@r/s"
              "\n2 R:PKT/c B:PKT@s/s A:PKT@s/s B:PKT@r/c A:PKT@r/c"
              "\n0 A:END/c B:END/c A:END/s B:END/s");
}

/* The receiver's half begins with the first datagram that reaches it. */
static void test_a_dropped_datagram(void)
{
    talk_t *t = talk();
    datagram(t, 0, 0, 5);
    datagram(t, 0, 0, 5);
    dropper = 1;
    CHECK_STR(traced(t, false, false, 0), "\n1 A:PKT@s/c\n2 A:PKT@s/c A:START@r/s A:PKT@r/s\n0 A:END/c A:END/s");
    dropper = 0;
}

static void test_bytes_beyond_the_window(void)
{
    talk_t *t = talk();
    handshake(t, 0);
    segment(t, 0, 1, SMOS__ACK, 501, 101, "");
    segment(t, 0, 0, SMOS__ACK, 101 + (1u << 30), 501, "far away");
    CHECK(strstr(traced(t, false, false, 0), "\n5 A:PKT@s/c A:ERROR/s A:PKT@r/s\n") != NULL);
}

int main(void)
{
    RUN(test_one_socket);
    RUN(test_two_sockets_and_a_raw_one);
    RUN(test_a_drop_ends_the_packet);
    RUN(test_gaps_and_a_reset);
    RUN(test_midstream_and_orphans);
    RUN(test_datagrams);
    RUN(test_a_dropped_datagram);
    RUN(test_bytes_beyond_the_window);
    return 0;
}
