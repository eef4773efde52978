/* Sequences of calls of the module API, from callbacks of two modules over traffic of all kinds: every choice is two bytes of the input (tests/api_chance.h). No call
 * crashes, each returns what its contract names, and nothing is left in use. */
#include "../tests/api_chance.h"

typedef struct input {
    const uint8_t *at;
    size_t left;
    uint32_t spent; /* when the input is used up, draws go on by themselves */
} input_t;

static uint32_t next(void *source)
{
    input_t *in = source;
    if (in->left < 2) return (in->spent = in->spent * 1103515245u + 12345u) >> 8;
    uint32_t drawn = in->at[0] | (uint32_t)in->at[1] << 8;
    in->at += 2;
    in->left -= 2;
    return drawn;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t in = {data, size, 1};
    chance_t c = {.draw = next, .source = &in};
    chance_run(&c, 60, (int)(size < 4000 ? size : 4000));
    return 0;
}
