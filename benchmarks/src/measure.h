/* measure.h: CPU time and memory of this process, for the programs that are compared. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* User and system time of the whole process, start-up and page faults included. */
static inline uint64_t cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* A field of /proc/self/status in bytes; 0 where there is none. */
static inline uint64_t status_bytes(const char *field)
{
    char line[256];
    size_t length = strlen(field);
    unsigned long long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    if (!status)
        return 0;
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, field, length) && line[length] == ':') {
            sscanf(line + length + 1, "%llu", &kib);
            break;
        }
    fclose(status);
    return (uint64_t)kib * 1024;
}

/* Anonymous and shared memory in use, without the mapped capture (that is the page cache's). */
static inline uint64_t memory_bytes(void)
{
    return status_bytes("RssAnon") + status_bytes("RssShmem");
}

#endif
