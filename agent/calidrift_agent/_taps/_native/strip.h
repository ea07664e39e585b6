/* What the taps of one call saw, as plain C: no Python, no torch.
 *
 * The same figures, bit for bit, as `_measure.py` and `_recorder.py` make with torch and numpy;
 * tests hold both to each other.
 */
#ifndef CALIDRIFT_STRIP_H
#define CALIDRIFT_STRIP_H

#include <stddef.h>
#include <stdint.h>

#define ROW_FIGURES 3 /* of each row: largest and smallest finite value, whether it is broken */
#define MAX_CELLS 2048 /* room for the histogram of one tensor on the stack */
#define LANES 64 /* sums of squares run in so many lanes, as in `_measure.square_sums` */

/* Numbers that Python owns, set once; see `_stride.py` and `_sketch/_grid.py`. */
typedef struct {
    int64_t sample_limit; /* tensors up to this size are sampled whole */
    int64_t least;        /* least samples of a larger one */
    int64_t share;        /* one element in so many, within these limits */
    int64_t whole_limit;  /* above it, other dense memory orders than the contiguous are taken */
    int64_t cells;        /* cells of one histogram */
    uint32_t *table;      /* cell of the upper 16 bits of a float: cell << 16 | 0xffff - threshold */
} Plan;

/* The clip range of a point: what lies outside [lower, upper] is clipped to [lo, hi]. */
typedef struct {
    double lower, upper, lo, hi; /* lower > upper: the point has none */
} Limit;

/* One measured tensor. */
typedef struct {
    int64_t numel, weight, count; /* elements; elements per sample; samples */
    size_t sample, extreme;       /* where its samples begin; where its rows' extremes do */
    int64_t parts;                /* rows with extremes of their own: `rows`, or 1 for all */
    int64_t nan, inf, clip_low, clip_high;
    double clip_energy, energy;
    Limit limit;
} Entry;

/* A point and the entry of the tensor it saw. */
typedef struct {
    int64_t point, entry;
} Mark;

typedef struct {
    int64_t rows, repeat;
    int wary;      /* rows may alternate in this call: Python must look at each tensor */
    uint32_t draw; /* where sampling begins, as a share of the stride in 2**-32 */
    int64_t entries, marks;
    size_t samples, extremes; /* in use */
    Entry *entry;
    Mark *mark;
    float *sample;
    float *extreme; /* per entry, each `parts` times: largest and smallest finite value, broken */
    size_t entry_room, mark_room, sample_room, extreme_room;
} Strip;

/* A float32 tensor whose elements fill one block, first dimension outermost. */
typedef struct {
    const float *data;
    int64_t numel, entries; /* `entries`: its first dimension */
    int32_t dimensions;
    const int64_t *shape;
} Block;

void strip_choose(int plain); /* picks the code for this processor, or that for any */
void strip_begin(Strip *strip, int64_t rows, int64_t repeat, uint32_t draw);
void strip_free(Strip *strip);

/* Measures a tensor for a point. 0: done; -1: no memory, nothing changed. `again` says that it is
 * the tensor of the entry before, which may have been written to since. */
int strip_take(Strip *strip, const Plan *plan, const Limit *limit, int64_t point,
               const Block *block, int again);

/* Counts all samples into `cells`, one histogram per point. */
void strip_fold(const Strip *strip, const Plan *plan, int64_t *cells);

/* Where the figures of a point stand in a window; see `CountColumn` and `ValueColumn`. */
typedef struct {
    int64_t counts, values; /* columns of either kind */
    int64_t rows, elements, nan, inf, clip_elements, clip_low, clip_high;
    int64_t units, exceedances, ratio_first, units_measured, units_not_finite;
    int64_t lowest, highest, clipped_energy, energy, ratio_sum, unit_highest;
} Columns;

/* The arrays of a window: int64 (P, columns->counts) and double (P, columns->values). */
typedef struct {
    const Columns *columns;
    int64_t *counts;
    double *values;
} Window;

/* Adds elements, rows and extremes of each point that fired. Writes the points, ascending, and
 * the largest magnitude of each of their rows (infinite for a broken one); returns how many. */
int64_t strip_add_ranges(const Strip *strip, const Window *window, int64_t *points,
                         double *absmax);

/* Adds what the clip ranges cut off, and the energy they saw; after `strip_weigh`. */
void strip_add_clips(const Strip *strip, const Window *window);

/* Adds a unit of inference: its largest magnitudes at `count` points, and these against their
 * bounds, in buckets of `bounds` ratios. Returns -1 where no bound is known, else whether it was covered. */
int strip_add_unit(const Window *window, const int64_t *points, const double *absmax,
                   int64_t count, const double *observed, const double *bounds, int64_t ratios);

/* Sums up the energy of all samples. */
void strip_weigh(Strip *strip);

/* The sum of all lanes: the upper half is added to the lower, until one is left. */
static inline double lane_total(double *lanes)
{
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0];
}

#endif
