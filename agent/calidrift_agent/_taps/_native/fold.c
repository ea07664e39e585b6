/* The drain: what the taps of one call saw becomes counts in the open window. */
#include "strip.h"

#include <math.h>
#include <string.h>

/* Two histograms in turn: the next value is often in the cell of this one, which is not there yet. */
static void bucket(const Plan *plan, const float *x, int64_t n, uint16_t counts[2][MAX_CELLS])
{
    const uint32_t *table = plan->table;
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        uint32_t one, two;
        memcpy(&one, x + i, sizeof one);
        memcpy(&two, x + i + 1, sizeof two);
        counts[0][(table[one >> 16] + (one & 0xffff)) >> 16]++;
        counts[1][(table[two >> 16] + (two & 0xffff)) >> 16]++;
    }
    if (i < n) {
        uint32_t one;
        memcpy(&one, x + i, sizeof one);
        counts[0][(table[one >> 16] + (one & 0xffff)) >> 16]++;
    }
}

void strip_fold(const Strip *strip, const Plan *plan, int64_t *cells)
{
    uint16_t counts[2][MAX_CELLS]; /* a tensor has 4096 samples at most */
    int64_t mark = 0;
    for (int64_t index = 0; index < strip->entries; index++) {
        const Entry *entry = &strip->entry[index];
        memset(counts, 0, sizeof counts);
        bucket(plan, strip->sample + entry->sample, entry->count, counts);
        for (int64_t cell = 0; cell < plan->cells; cell++)
            counts[0][cell] = (uint16_t)(counts[0][cell] + counts[1][cell]);
        for (; mark < strip->marks && strip->mark[mark].entry == index; mark++) {
            int64_t *row = cells + strip->mark[mark].point * plan->cells;
            for (int64_t cell = 0; cell < plan->cells; cell++)
                if (counts[0][cell])
                    row[cell] += counts[0][cell] * entry->weight;
        }
    }
}

static double energy_of(const float *x, int64_t n)
{
    double lanes[LANES] = {0};
    int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += (double)x[i + lane] * (double)x[i + lane];
    for (int64_t i = whole; i < n; i++)
        lanes[i - whole] += (double)x[i] * (double)x[i];
    double total = lane_total(lanes);
    if (isfinite(total))
        return total;
    memset(lanes, 0, sizeof lanes);
    for (int64_t i = 0; i < n; i++)
        lanes[i % LANES] += isfinite(x[i]) ? (double)x[i] * (double)x[i] : 0.0;
    return lane_total(lanes);
}

void strip_weigh(Strip *strip)
{
    for (int64_t index = 0; index < strip->entries; index++) {
        Entry *entry = &strip->entry[index];
        entry->energy = energy_of(strip->sample + entry->sample, entry->count) *
                        (double)entry->weight;
    }
}

/* Marks by point, each point's in the order of the call; mostly they are in order already. */
static void order_marks(const Strip *strip, int64_t *order)
{
    for (int64_t i = 0; i < strip->marks; i++) {
        int64_t at = i, point = strip->mark[i].point;
        for (; at > 0 && strip->mark[order[at - 1]].point > point; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

int64_t strip_add_ranges(const Strip *strip, const Window *window, int64_t *points,
                         double *absmax)
{
    const Columns *at = window->columns;
    int64_t found = 0, rows = strip->rows;
    /* The order is kept where the points go: each is read before a point is written over it. */
    order_marks(strip, points);
    for (int64_t i = 0; i < strip->marks; i++) {
        const Mark *mark = &strip->mark[points[i]];
        const Entry *entry = &strip->entry[mark->entry];
        const float *figures = strip->extreme + entry->extreme;
        int64_t *count = window->counts + mark->point * at->counts;
        double *value = window->values + mark->point * at->values;
        int first = found == 0 || points[found - 1] != mark->point;
        if (first) {
            points[found++] = mark->point;
            count[at->rows] += rows;
        }
        count[at->elements] += entry->numel;
        count[at->nan] += entry->nan;
        count[at->inf] += entry->inf;
        double *magnitude = absmax + (found - 1) * rows;
        for (int64_t row = 0; row < rows; row++) {
            int64_t part = entry->parts == 1 ? 0 : row;
            /* Adding zero makes a zero of -0. */
            double high = (double)figures[part] + 0.0;
            double low = (double)figures[entry->parts + part] + 0.0;
            double most = fabs(high) > fabs(low) ? fabs(high) : fabs(low);
            if (figures[2 * entry->parts + part] != 0.0f)
                most = INFINITY;
            magnitude[row] = first || most > magnitude[row] ? most : magnitude[row];
            value[at->highest] = high > value[at->highest] ? high : value[at->highest];
            value[at->lowest] = low < value[at->lowest] ? low : value[at->lowest];
        }
    }
    return found;
}

void strip_add_clips(const Strip *strip, const Window *window)
{
    const Columns *at = window->columns;
    for (int64_t i = 0; i < strip->marks; i++) {
        const Mark *mark = &strip->mark[i];
        const Entry *entry = &strip->entry[mark->entry];
        if (entry->limit.lower > entry->limit.upper)
            continue;
        int64_t *count = window->counts + mark->point * at->counts;
        double *value = window->values + mark->point * at->values;
        count[at->clip_elements] += entry->numel;
        count[at->clip_low] += entry->clip_low;
        count[at->clip_high] += entry->clip_high;
        value[at->clipped_energy] += entry->clip_energy;
        value[at->energy] += entry->energy;
    }
}

int strip_add_unit(const Window *window, const int64_t *points, const double *absmax,
                   int64_t count, const double *observed, const double *bounds, int64_t ratios)
{
    const Columns *at = window->columns;
    int known = 0, covered = 1;
    for (int64_t i = 0; i < count; i++) {
        double bound = observed[points[i]], most = absmax[i];
        if (isnan(most))
            continue;
        int64_t *row = window->counts + points[i] * at->counts;
        double *value = window->values + points[i] * at->values;
        row[at->units_measured]++;
        if (isinf(most))
            row[at->units_not_finite]++;
        else if (most > value[at->unit_highest])
            value[at->unit_highest] = most;
        if (!isfinite(bound))
            continue;
        known = 1;
        int exceeds = most > bound;
        /* A bound of 0: inside means 0, and any other value is outside. */
        double ratio = bound > 0.0 ? most / bound : exceeds ? INFINITY : 0.0;
        int64_t bucket = 0;
        while (bucket < ratios && bounds[bucket] < ratio)
            bucket++;
        row[at->units]++;
        row[at->exceedances] += exceeds;
        row[at->ratio_first + bucket]++;
        if (isfinite(ratio))
            value[at->ratio_sum] += ratio;
        covered &= !exceeds;
    }
    return known ? covered : -1;
}
