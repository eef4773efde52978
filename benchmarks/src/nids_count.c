/* nids_count FILE [STREAMS]: libnids with checksums on and a handler that counts the bytes of both streams. */
#include <inttypes.h>
#include <stdlib.h>

#include <sys/types.h>

#include <nids.h>

#include "measure.h"

static uint64_t connections, stream_bytes[2];

static void on_tcp(struct tcp_stream *stream, void **unused)
{
    (void)unused;
    switch (stream->nids_state) {
    case NIDS_JUST_EST:
        stream->client.collect++;
        stream->server.collect++;
        connections++;
        break;
    case NIDS_DATA:
        /* `server` holds what the server received, so what the client sent. */
        stream_bytes[0] += (uint64_t)stream->server.count_new;
        stream_bytes[1] += (uint64_t)stream->client.count_new;
        break;
    default: break;
    }
}

static void quiet(void)
{
}

/* Not inlined: callgrind collects in this function only. */
__attribute__((noinline)) static void bench_loop(void)
{
    nids_run();
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fputs("usage: nids_count FILE [STREAMS]\n", stderr);
        return 2;
    }
    nids_params.filename = argv[1];
    nids_params.n_tcp_streams = argc == 3 ? atoi(argv[2]) : 1 << 17;
    nids_params.scan_num_hosts = 0; /* its port-scan detector is not what is measured */
    nids_params.syslog = (void (*)())quiet;
    if (!nids_init()) {
        fprintf(stderr, "nids_count: %s\n", nids_errbuf);
        return 1;
    }
    nids_register_tcp((void *)on_tcp);
    bench_loop();
    printf("{\"connections\": %" PRIu64 ", \"stream_bytes\": [%" PRIu64 ", %" PRIu64 "], \"cpu_ns\": %" PRIu64 ", \"memory\": %" PRIu64
           "}\n",
           connections, stream_bytes[0], stream_bytes[1], cpu_ns(), memory_bytes());
    return 0;
}
