/* count_pcap FILE: the least a program on libpcap can do: take every packet and count it. */
#include <inttypes.h>
#include <pcap/pcap.h>

#include "measure.h"

typedef struct counts {
    uint64_t packets, bytes;
} counts_t;

/* Not inlined: callgrind collects in this function only. */
__attribute__((noinline)) static int bench_loop(pcap_t *pcap, counts_t *counts)
{
    struct pcap_pkthdr *header;
    const u_char *data;
    int result;
    while ((result = pcap_next_ex(pcap, &header, &data)) == 1) {
        counts->packets++;
        counts->bytes += header->len;
    }
    return result;
}

int main(int argc, char **argv)
{
    char error[PCAP_ERRBUF_SIZE];
    if (argc != 2) {
        fputs("usage: count_pcap FILE\n", stderr);
        return 2;
    }
    pcap_t *pcap = pcap_open_offline(argv[1], error);
    if (!pcap) {
        fprintf(stderr, "count_pcap: %s\n", error);
        return 1;
    }
    counts_t counts = {0};
    if (bench_loop(pcap, &counts) != PCAP_ERROR_BREAK) {
        fprintf(stderr, "count_pcap: %s: %s\n", argv[1], pcap_geterr(pcap));
        return 1;
    }
    pcap_close(pcap);
    printf("{\"packets\": %" PRIu64 ", \"frame_bytes\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 "}\n", counts.packets, counts.bytes,
           cpu_ns());
    return 0;
}
