/* Counts durations in buckets that are at most 1.6 % wide, from 1 ns to 584 years, in 32 KiB.
 * Must not know what is timed. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { HISTOGRAM_SUB = 64, HISTOGRAM_BUCKETS = 59 * HISTOGRAM_SUB };

typedef struct {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t max_ns;
} histogram;

static void histogram_clear(histogram *h) { memset(h, 0, sizeof *h); }

static int histogram_bucket(uint64_t ns) {
    if (ns < HISTOGRAM_SUB) return (int)ns;
    int exponent = 63 - __builtin_clzll(ns);
    return (exponent - 5) * HISTOGRAM_SUB + (int)((ns >> (exponent - 6)) & (HISTOGRAM_SUB - 1));
}

static void histogram_add(histogram *h, int64_t signed_ns) {
    uint64_t ns = signed_ns > 0 ? (uint64_t)signed_ns : 0;
    h->counts[histogram_bucket(ns)]++;
    h->total++;
    if (ns > h->max_ns) h->max_ns = ns;
}

/* Gives the upper end of the bucket that holds the duration below which `share` of all lie. */
static double histogram_ms(const histogram *h, double share) {
    uint64_t rank = (uint64_t)(share * (double)h->total), seen = 0;
    if (rank >= h->total) rank = h->total - 1;
    for (int bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += h->counts[bucket];
        if (seen > rank) {
            uint64_t end = (uint64_t)bucket + 1;
            if (bucket >= 2 * HISTOGRAM_SUB) {
                int exponent = bucket / HISTOGRAM_SUB + 5;
                end = ((uint64_t)(HISTOGRAM_SUB + bucket % HISTOGRAM_SUB) + 1) << (exponent - 6);
            }
            return (double)(end < h->max_ns ? end : h->max_ns) * 1e-6;
        }
    }
    return 0;
}

/* Writes `"NAME":{"p50":…,…}` in milliseconds, or `"NAME":null` where nothing was counted. */
static void histogram_print(const char *name, const histogram *h) {
    if (h->total == 0) {
        printf("\"%s\":null", name);
        return;
    }
    printf("\"%s\":{\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f}", name,
           histogram_ms(h, 0.5), histogram_ms(h, 0.9), histogram_ms(h, 0.99), histogram_ms(h, 0.999),
           (double)h->max_ns * 1e-6);
}

#endif
