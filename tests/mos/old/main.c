/* C as it was, with GNU's extensions: functions in K&R's form, int left out, undeclared functions, nested functions as callbacks, computed goto,
 * statements as expressions, ranges, an environment. */
#include <stdio.h>
#include <mos_api.h>
#include "list.h"

#define LARGER(a, b) ({ typeof(a) a_ = (a); typeof(b) b_ = (b); a_ > b_ ? a_ : b_; })
static count, sizes[] = {[0 ... 2] = -1};

static void on_packet(mctx, sock, side, event, arg)
mctx_t mctx;
event_t event;
filter_arg_t *arg;
{
    static void *where[] = {&&none, &&some};
    struct pkt_info p;
    if (mtcp_getlastpkt(mctx, sock, side, &p)) return;
    goto *where[p.payloadlen > 0];
none:
    sizes[0] = LARGER(sizes[0], (int)p.ip_len);
    return;
some:
    switch (p.payload[0]) {
    case 'A' ... 'G': remember(p.payload, 3); break;
    default: sizes[1] = LARGER(sizes[1], (int)p.payloadlen);
    }
}

main(argc, argv, environment)
char **argv, **environment;
{
    int started = 0, sock, length = 0;
    entry_t *e;
    mctx_t mctx = mtcp_create_context(0);
    auto void on_start(mctx_t m, int s, int side, event_t event, filter_arg_t *arg);
    void on_start(mctx_t m, int s, int side, event_t event, filter_arg_t *arg) { started++; }
    sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    if (mtcp_register_callback(mctx, sock, MOS_ON_PKT_IN, MOS_HK_SND, on_packet)) return 1;
    if (mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_RCV, on_start)) return 1;
    for (; *environment; environment++) count += !strncmp(*environment, "PATH=", 5);
    mtcp_app_join(mctx);
    for (e = entries; e; e = e->next) length += e->length;
    printf("%d started, %d of %s, %d %d, PATH %d\n", started, length, entries->text, sizes[0], sizes[1], count);
    printf("%d twice\n", shared);
    return 0;
}
