#include "port/filter.h"

#include <pcap/pcap.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libpcap's compiler keeps its whole program on one yacc stack; what no person writes is refused before it gets there. */
#define MAX_TEXT 65536
#define SNAPLEN 262144

struct smos__filter {
    struct bpf_program program;
    int all; /* empty text: no program */
};

/* libpcap before 1.8 compiles into global state, and newer ones still share the name resolver's. */
static pthread_mutex_t compiling = PTHREAD_MUTEX_INITIALIZER;

/* Linux answers loads from negative offsets (SKF_AD_OFF) with what it knows about a packet; bpf_filter would just not match. */
static int asks_the_kernel(const struct bpf_program *program)
{
    for (u_int i = 0; i < program->bf_len; i++) {
        const struct bpf_insn *insn = &program->bf_insns[i];
        if (BPF_CLASS(insn->code) == BPF_LD && BPF_MODE(insn->code) == BPF_ABS && (int32_t)insn->k < 0) return 1;
    }
    return 0;
}

static int compile(struct bpf_program *program, const char *text, char *error, size_t error_size)
{
    pcap_t *pcap = pcap_open_dead(DLT_RAW, SNAPLEN);
    if (pcap == NULL) {
        snprintf(error, error_size, "out of memory");
        return -1;
    }
    int failed = pcap_compile(pcap, program, text, 1, PCAP_NETMASK_UNKNOWN) != 0;
    if (failed) {
        snprintf(error, error_size, "%s", pcap_geterr(pcap));
        for (char *c = error; *c != '\0'; c++) /* it quotes the expression */
            if ((unsigned char)*c < ' ') *c = ' ';
    }
    pcap_close(pcap);
    if (!failed && asks_the_kernel(program)) {
        pcap_freecode(program);
        snprintf(error, error_size, "inbound, outbound and ifindex are not known of a packet in a flow");
        failed = 1;
    }
    return failed ? -1 : 0;
}

smos__filter_t *smos__filter_compile(const char *text, char *error, size_t error_size)
{
    if (text == NULL) text = "";
    if (strnlen(text, MAX_TEXT + 1) > MAX_TEXT) {
        snprintf(error, error_size, "a filter has at most %d bytes", MAX_TEXT);
        return NULL;
    }
    smos__filter_t *filter = calloc(1, sizeof *filter);
    if (filter == NULL) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    filter->all = text[strspn(text, " \t\r\n")] == '\0';
    if (filter->all) return filter;

    pthread_mutex_lock(&compiling);
    int failed = compile(&filter->program, text, error, error_size);
    pthread_mutex_unlock(&compiling);
    if (failed) {
        free(filter);
        return NULL;
    }
    return filter;
}

int smos__filter_match(const smos__filter_t *filter, const uint8_t *ip, uint32_t length, uint32_t captured)
{
    return filter->all || bpf_filter(filter->program.bf_insns, ip, length, captured) != 0;
}

void smos__filter_free(smos__filter_t *filter)
{
    if (filter == NULL) return;
    if (!filter->all) pcap_freecode(&filter->program);
    free(filter);
}
