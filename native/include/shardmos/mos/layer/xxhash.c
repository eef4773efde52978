/* XXH32 and XXH64, after the specification of xxHash 0.1.1. mOS offers them to its programs; the layer hashes registrations with one. */
#include <string.h>

#include "layer.h"

#define A32 0x9E3779B1u
#define B32 0x85EBCA77u
#define C32 0xC2B2AE3Du
#define D32 0x27D4EB2Fu
#define E32 0x165667B1u
#define A64 0x9E3779B185EBCA87ull
#define B64 0xC2B2AE3D27D4EB4Full
#define C64 0x165667B19E3779F9ull
#define D64 0x85EBCA77C2B2AE63ull
#define E64 0x27D4EB2F165667C5ull

static uint32_t left32(uint32_t x, int n) { return x << n | x >> (32 - n); }
static uint64_t left64(uint64_t x, int n) { return x << n | x >> (64 - n); }

static uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t load64(const uint8_t *p) { return load32(p) | (uint64_t)load32(p + 4) << 32; }

static uint32_t round32(uint32_t lane, uint32_t input) { return left32(lane + input * B32, 13) * A32; }
static uint64_t round64(uint64_t lane, uint64_t input) { return left64(lane + input * B64, 31) * A64; }


__attribute__((weak)) unsigned int XXH32(const void *input, size_t length, unsigned seed)
{
    const uint8_t *p = input, *end = p + length;
    uint32_t hash = seed + E32;
    if (length >= 16) {
        uint32_t lane[4] = {seed + A32 + B32, seed + B32, seed, seed - A32};
        for (; end - p >= 16; p += 16)
            for (int i = 0; i < 4; i++) lane[i] = round32(lane[i], load32(p + 4 * i));
        hash = left32(lane[0], 1) + left32(lane[1], 7) + left32(lane[2], 12) + left32(lane[3], 18);
    }
    hash += (uint32_t)length;
    for (; end - p >= 4; p += 4) hash = left32(hash + load32(p) * C32, 17) * D32;
    for (; p < end; p++) hash = left32(hash + *p * E32, 11) * A32;
    hash = (hash ^ hash >> 15) * B32;
    hash = (hash ^ hash >> 13) * C32;
    return hash ^ hash >> 16;
}


__attribute__((weak)) unsigned long long XXH64(const void *input, size_t length, unsigned long long seed)
{
    const uint8_t *p = input, *end = p + length;
    uint64_t hash = seed + E64;
    if (length >= 32) {
        uint64_t lane[4] = {seed + A64 + B64, seed + B64, seed, seed - A64};
        for (; end - p >= 32; p += 32)
            for (int i = 0; i < 4; i++) lane[i] = round64(lane[i], load64(p + 8 * i));
        hash = left64(lane[0], 1) + left64(lane[1], 7) + left64(lane[2], 12) + left64(lane[3], 18);
        for (int i = 0; i < 4; i++) hash = (hash ^ round64(0, lane[i])) * A64 + D64;
    }
    hash += length;
    for (; end - p >= 8; p += 8) hash = left64(hash ^ round64(0, load64(p)), 27) * A64 + D64;
    if (end - p >= 4) {
        hash = left64(hash ^ load32(p) * A64, 23) * B64 + C64;
        p += 4;
    }
    for (; p < end; p++) hash = left64(hash ^ *p * E64, 11) * A64;
    hash = (hash ^ hash >> 33) * B64;
    hash = (hash ^ hash >> 29) * C64;
    return hash ^ hash >> 32;
}
