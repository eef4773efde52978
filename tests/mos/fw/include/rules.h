#ifndef RULES_H
#define RULES_H
#include <stdint.h>
#include <netinet/in.h>

typedef enum { NONE, ACCEPT, DROP } verdict_t;

struct rule {
    in_addr_t source, destination; /* network order, as the ports */
    int source_bits, destination_bits;
    in_port_t sport, dport;
    verdict_t verdict;
    unsigned hits;
};

int read_rules(const char *path);
verdict_t look_up(in_addr_t source, in_addr_t destination, in_port_t sport, in_port_t dport);
void print_rules(const char *when);
#endif
