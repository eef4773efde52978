/* Callbacks that register, close, drop, reset, edit, inject and free in any order: sequences of calls by chance, the same at every run. What one does is in
 * api_chance.h; API_CHANCE_SEED=N runs that one alone, API_CHANCE_RUNS=N so many. */
#include "api_chance.h"

static uint32_t next(void *source)
{
    uint64_t *state = source;
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

int main(void)
{
    const char *one = getenv("API_CHANCE_SEED"), *many = getenv("API_CHANCE_RUNS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, runs = one ? 1 : many ? strtoull(many, NULL, 10) : 150;
    for (uint64_t seed = first; seed < first + runs; seed++) {
        uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15);
        chance_t c = {.draw = next, .source = &state};
        if (many) fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        chance_run(&c, 200, 3000);
    }
    printf("ok %llu sequences\n", (unsigned long long)runs);
    return 0;
}
