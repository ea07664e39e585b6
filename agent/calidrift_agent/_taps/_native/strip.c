#include "strip.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#include <immintrin.h>
#define HAS_AVX2 1
#endif

#define WIDTH 8
#define BLOCK 2048 /* floats that are scanned before their samples are taken: half of L1 */

/* Which elements are taken on the way: `next`, `next + stride`, ... */
typedef struct {
    int64_t next, stride;
    float *out;
} Sampling;

/* Extremes of the values that are not NaN, and whether there was a NaN. */
typedef struct {
    float high, low;
    int unordered;
} Found;

static void pick(Sampling *sampling, const float *data, int64_t from, int64_t to)
{
    if (sampling->stride == 1) {
        memcpy(sampling->out + from, data + from, (size_t)(to - from) * sizeof(float));
        return;
    }
    int64_t next = sampling->next, stride = sampling->stride;
    float *out = sampling->out;
    for (; next < to; next += stride)
        *out++ = data[next];
    sampling->next = next;
    sampling->out = out;
}

static void widen(Found *found, float high, float low)
{
    found->high = high > found->high ? high : found->high;
    found->low = low < found->low ? low : found->low;
}

static void scan_plain(const float *data, int64_t from, int64_t to, Sampling *sampling,
                       Found *found)
{
    for (int64_t start = from; start < to; start += BLOCK) {
        int64_t end = start + BLOCK < to ? start + BLOCK : to, i = start;
        float highs[WIDTH], lows[WIDTH];
        int unordered[WIDTH] = {0};
        for (int lane = 0; lane < WIDTH; lane++)
            highs[lane] = found->high, lows[lane] = found->low;
        for (; i + WIDTH <= end; i += WIDTH)
            for (int lane = 0; lane < WIDTH; lane++) {
                float v = data[i + lane];
                highs[lane] = v > highs[lane] ? v : highs[lane];
                lows[lane] = v < lows[lane] ? v : lows[lane];
                unordered[lane] |= v != v;
            }
        for (; i < end; i++) {
            widen(found, data[i], data[i]);
            found->unordered |= data[i] != data[i];
        }
        for (int lane = 0; lane < WIDTH; lane++) {
            widen(found, highs[lane], lows[lane]);
            found->unordered |= unordered[lane];
        }
        pick(sampling, data, start, end);
    }
}

#ifdef HAS_AVX2
__attribute__((target("avx2"))) static void scan_avx2(const float *data, int64_t from, int64_t to,
                                                      Sampling *sampling, Found *found)
{
    int64_t start = from;
    __m256 h0 = _mm256_set1_ps(found->high), h1 = h0, h2 = h0, h3 = h0;
    __m256 l0 = _mm256_set1_ps(found->low), l1 = l0, l2 = l0, l3 = l0;
    __m256 u0 = _mm256_setzero_ps(), u1 = u0;
    for (; start + 32 <= to;) {
        int64_t end = start + BLOCK < to ? start + BLOCK : to, i = start;
        for (; i + 32 <= end; i += 32) {
            __m256 a = _mm256_loadu_ps(data + i), b = _mm256_loadu_ps(data + i + 8);
            __m256 c = _mm256_loadu_ps(data + i + 16), d = _mm256_loadu_ps(data + i + 24);
            /* max(v, h) is h where v is NaN. */
            h0 = _mm256_max_ps(a, h0), l0 = _mm256_min_ps(a, l0);
            h1 = _mm256_max_ps(b, h1), l1 = _mm256_min_ps(b, l1);
            h2 = _mm256_max_ps(c, h2), l2 = _mm256_min_ps(c, l2);
            h3 = _mm256_max_ps(d, h3), l3 = _mm256_min_ps(d, l3);
            u0 = _mm256_or_ps(u0, _mm256_cmp_ps(a, b, _CMP_UNORD_Q));
            u1 = _mm256_or_ps(u1, _mm256_cmp_ps(c, d, _CMP_UNORD_Q));
        }
        pick(sampling, data, start, i);
        start = i;
    }
    float highs[8], lows[8];
    _mm256_storeu_ps(highs, _mm256_max_ps(_mm256_max_ps(h0, h1), _mm256_max_ps(h2, h3)));
    _mm256_storeu_ps(lows, _mm256_min_ps(_mm256_min_ps(l0, l1), _mm256_min_ps(l2, l3)));
    for (int lane = 0; lane < 8; lane++)
        widen(found, highs[lane], lows[lane]);
    found->unordered |= _mm256_movemask_ps(_mm256_or_ps(u0, u1)) != 0;
    scan_plain(data, start, to, sampling, found);
}
#endif

static void (*scan)(const float *, int64_t, int64_t, Sampling *, Found *) = scan_plain;

void strip_choose(int plain)
{
    scan = scan_plain;
    (void)plain;
#ifdef HAS_AVX2
    __builtin_cpu_init();
    if (!plain && __builtin_cpu_supports("avx2"))
        scan = scan_avx2;
#endif
}

void strip_begin(Strip *strip, int64_t rows, int64_t repeat, uint32_t draw)
{
    strip->rows = rows;
    strip->repeat = repeat;
    strip->draw = draw;
    strip->entries = strip->marks = 0;
    strip->wary = 0;
    strip->samples = strip->extremes = 0;
}

void strip_free(Strip *strip)
{
    free(strip->entry);
    free(strip->mark);
    free(strip->sample);
    free(strip->extreme);
    memset(strip, 0, sizeof *strip);
}

/* Makes room for `more` items behind the `used` ones. */
static int reserve(void **items, size_t *room, size_t used, size_t more, size_t size)
{
    if (used + more <= *room)
        return 0;
    size_t wanted = used + more + (used + more) / 2 + 16;
    void *grown = realloc(*items, wanted * size);
    if (grown == NULL)
        return -1;
    *items = grown;
    *room = wanted;
    return 0;
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* `_stride.sample_plan`. Returns the stride. */
static int64_t plan_samples(const Plan *plan, const Block *block, Entry *entry)
{
    int64_t numel = block->numel, wanted = numel / plan->share, stride;
    if (numel <= plan->sample_limit) {
        entry->count = numel;
        entry->weight = 1;
        return 1;
    }
    wanted = wanted < plan->least ? plan->least : wanted;
    wanted = wanted > plan->sample_limit ? plan->sample_limit : wanted;
    stride = ((numel + wanted - 1) / wanted) | 1;
    for (int32_t i = 0; i < block->dimensions;) {
        if (gcd(stride, i == 0 ? block->entries : block->shape[i]) > 1) {
            stride += 2;
            i = 0;
        } else {
            i++;
        }
    }
    entry->count = numel / stride > 1 ? numel / stride : 1;
    double weight = nearbyint((double)numel / (double)entry->count); /* Python's round */
    entry->weight = weight < 1.0 ? 1 : (int64_t)weight;
    return stride;
}

/* Extremes of the finite values of a row that holds others, which are counted. */
static void scan_finite(const float *x, int64_t n, Entry *entry, float *high, float *low)
{
    *high = -INFINITY;
    *low = INFINITY;
    for (int64_t i = 0; i < n; i++) {
        float v = x[i];
        if (v != v)
            entry->nan++;
        else if (v == INFINITY || v == -INFINITY)
            entry->inf++;
        else {
            *high = v > *high ? v : *high;
            *low = v < *low ? v : *low;
        }
    }
}

static void count_clipped(const Block *block, Entry *entry)
{
    double above[LANES] = {0}, below[LANES] = {0};
    const Limit *limit = &entry->limit;
    for (int64_t i = 0; i < block->numel; i++) {
        double v = block->data[i];
        if (v > limit->upper && v < INFINITY) {
            double excess = v - limit->hi;
            above[entry->clip_high++ % LANES] += excess * excess;
        } else if (v < limit->lower && v > -INFINITY) {
            double excess = v - limit->lo;
            below[entry->clip_low++ % LANES] += excess * excess;
        }
    }
    entry->clip_energy = lane_total(above) + lane_total(below);
}

/* Extremes of all rows, and samples on the way, while a block of values is in the cache. */
static void scan_rows(Strip *strip, Entry *entry, const Block *block, int64_t stride)
{
    float *highs = strip->extreme + entry->extreme, *lows = highs + entry->parts;
    float *broken = lows + entry->parts;
    int64_t length = block->numel / entry->parts;
    Sampling sampling = {(int64_t)(((uint64_t)strip->draw * (uint64_t)stride) >> 32), stride,
                         strip->sample + entry->sample};
    for (int64_t part = 0; part < entry->parts; part++) {
        Found found = {-INFINITY, INFINITY, 0};
        scan(block->data, part * length, (part + 1) * length, &sampling, &found);
        broken[part] = found.unordered || found.high == INFINITY || found.low == -INFINITY;
        if (broken[part])
            scan_finite(block->data + part * length, length, entry, &found.high, &found.low);
        highs[part] = found.high;
        lows[part] = found.low;
    }
}

/* Whether the last two entries say the same, whatever tensors they come from. */
static int same_record(const Strip *strip, const Entry *a, const Entry *b)
{
    return a->numel == b->numel && a->parts == b->parts && a->count == b->count &&
           a->nan == b->nan && a->inf == b->inf &&
           memcmp(&a->limit, &b->limit, sizeof(Limit)) == 0 &&
           memcmp(strip->extreme + a->extreme, strip->extreme + b->extreme,
                  ROW_FIGURES * (size_t)a->parts * sizeof(float)) == 0 &&
           memcmp(strip->sample + a->sample, strip->sample + b->sample,
                  (size_t)a->count * sizeof(float)) == 0;
}

static int is_outside(const Strip *strip, const Entry *entry)
{
    const float *highs = strip->extreme + entry->extreme, *lows = highs + entry->parts;
    for (int64_t part = 0; part < entry->parts; part++)
        if (highs[part] > entry->limit.upper || lows[part] < entry->limit.lower)
            return 1;
    return 0;
}

int strip_take(Strip *strip, const Plan *plan, const Limit *limit, int64_t point,
               const Block *block, int again)
{
    Entry fresh = {0};
    int64_t stride = plan_samples(plan, block, &fresh);
    fresh.numel = block->numel;
    fresh.limit = *limit;
    fresh.parts = block->entries % strip->rows ? 1 : strip->rows;
    fresh.sample = strip->samples;
    fresh.extreme = strip->extremes;
    if (reserve((void **)&strip->entry, &strip->entry_room, (size_t)strip->entries, 1,
                sizeof(Entry)) ||
        reserve((void **)&strip->mark, &strip->mark_room, (size_t)strip->marks, 1,
                sizeof(Mark)) ||
        reserve((void **)&strip->sample, &strip->sample_room, strip->samples,
                (size_t)fresh.count + 1, sizeof(float)) ||
        reserve((void **)&strip->extreme, &strip->extreme_room, strip->extremes,
                ROW_FIGURES * (size_t)fresh.parts, sizeof(float)))
        return -1;
    Entry *entry = &strip->entry[strip->entries];
    *entry = fresh;
    scan_rows(strip, entry, block, stride);
    if (again && strip->entries && same_record(strip, entry - 1, entry)) {
        strip->mark[strip->marks++] = (Mark){point, strip->entries - 1};
        return 0;
    }
    if (limit->lower <= limit->upper && is_outside(strip, entry))
        count_clipped(block, entry);
    strip->samples += (size_t)entry->count;
    strip->extremes += ROW_FIGURES * (size_t)entry->parts;
    strip->mark[strip->marks++] = (Mark){point, strip->entries++};
    return 0;
}
