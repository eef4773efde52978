/* Rules of a firewall: "ACCEPT|DROP source[/bits] destination[/bits] [sport:n] [dport:n]", the first that matches counts. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rules.h>
#include "debug.h"

#define MAX_RULES 1024
static struct rule rules[MAX_RULES];
static int count;

static in_addr_t mask(int bits) { return bits ? htonl(0xffffffffu << (32 - bits)) : 0; }

static int address(const char *word, in_addr_t *out, int *bits)
{
    char text[32], *slash;
    struct in_addr a;
    snprintf(text, sizeof(text), "%s", word);
    *bits = 32;
    if ((slash = strchr(text, '/'))) {
        *slash = '\0';
        *bits = atoi(slash + 1);
    }
    if (!inet_aton(text, &a) || *bits < 0 || *bits > 32) return -1;
    *out = a.s_addr & mask(*bits);
    return 0;
}

int read_rules(const char *path)
{
    char line[1024], *word[6];
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    while (fgets(line, sizeof(line), file)) {
        struct rule *r = &rules[count];
        int n = 0;
        char *at;
        line[strcspn(line, "#\n")] = '\0';
        for (at = strtok(line, " \t"); at && n < 6; at = strtok(NULL, " \t")) word[n++] = at;
        if (!n) continue;
        r->verdict = !strcmp(word[0], "ACCEPT") ? ACCEPT : !strcmp(word[0], "DROP") ? DROP : NONE;
        if (r->verdict == NONE || n < 3 || address(word[1], &r->source, &r->source_bits) || address(word[2], &r->destination, &r->destination_bits)) {
            TRACE_ERROR("bad rule\n");
            fclose(file);
            return -1;
        }
        while (n-- > 3) {
            if (!strncmp(word[n], "sport:", 6)) r->sport = htons(atoi(word[n] + 6));
            if (!strncmp(word[n], "dport:", 6)) r->dport = htons(atoi(word[n] + 6));
        }
        if (++count == MAX_RULES) break;
    }
    fclose(file);
    return count;
}

verdict_t look_up(in_addr_t source, in_addr_t destination, in_port_t sport, in_port_t dport)
{
    struct rule *r;
    for (r = rules; r < rules + count; r++) {
        if ((source & mask(r->source_bits)) != r->source || (destination & mask(r->destination_bits)) != r->destination) continue;
        if ((r->sport && r->sport != sport) || (r->dport && r->dport != dport)) continue;
        r->hits++;
        return r->verdict;
    }
    return ACCEPT;
}

void print_rules(const char *when)
{
    int i;
    printf("%s:", when);
    for (i = 0; i < count; i++) printf(" %u", rules[i].hits);
    printf("\n");
}
