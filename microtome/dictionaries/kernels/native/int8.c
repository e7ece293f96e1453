// Candidates for the largest pre-activations, searched with bytes; the matrix rows x n is never written.
//
// Rows and weights are rounded to 127ths of their largest entry. Twelve rows and 32 latents at a time are multiplied
// into 24 registers, and what comes out is compared with each row's threshold on the spot. Whatever the rounding does
// to the order is mended when the candidates are scored again (largest.c), as long as the right ones are among them.
#include "bytes.h"
#include "pool.h"
#include <omp.h>
#pragma GCC target("avx512vnni")

#define STRIP 12  // rows multiplied together: 24 sums, two vectors of weights and one of x fill the 32 registers
#define BLOCK (16 * STRIP)  // rows that meet a panel of weights while it lies in the cache

typedef struct {
    const float *x, *bias, *scales;
    const uint8_t *packed;
    int64_t rows, n, d, keep;
    int32_t *candidates;
} Search;

// Some rows as bytes, with what is needed to read sums of them as scores.
typedef struct {
    int32_t *strips;  // [strip][columns / 4][12 rows], four bytes in each
    float *scales, *norms;
    int32_t *shifts;  // what the 128 added to each weight adds to a sum
    Pool *pools;
    int32_t *keys, *indices;  // of all pools
} Rows;

static int rows_allocate(Rows *rows, const Search *s) {
    int64_t room = pool_room(s->keep);
    rows->strips = lines(BLOCK * quads(s->d), sizeof(int32_t));
    rows->scales = lines(BLOCK, sizeof(float));
    rows->norms = lines(BLOCK, sizeof(float));
    rows->shifts = lines(BLOCK, sizeof(int32_t));
    rows->pools = lines(BLOCK, sizeof(Pool));
    rows->keys = lines(BLOCK * room, sizeof(int32_t));
    rows->indices = lines(BLOCK * room, sizeof(int32_t));
    return rows->strips && rows->scales && rows->norms && rows->shifts && rows->pools && rows->keys && rows->indices;
}

static void rows_free(Rows *rows) {
    void *all[] = {rows->strips, rows->scales, rows->norms, rows->shifts, rows->pools, rows->keys, rows->indices};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void quantise_row(Rows *rows, const float *x, int64_t t, int64_t d) {
    float most = largest_size(x, d), scale = most > 0 ? 127 / most : 0;
    int32_t *place = rows->strips + t / STRIP * quads(d) * STRIP + t % STRIP;
    __m512i sum = _mm512_setzero_si512();
    for (int64_t column = 0; column < d; column += LANES) {
        __m512i whole = rounded(lanes(d - column), x + column, scale);
        int32_t four[LANES / 4];
        _mm_storeu_si128((__m128i *)four, _mm512_cvtsepi32_epi8(whole));
        sum = _mm512_add_epi32(sum, whole);
        for (int64_t q = 0; q < LANES / 4 && column + 4 * q < d; q++) place[(column / 4 + q) * STRIP] = four[q];
    }
    rows->scales[t] = most / 127;
    rows->shifts[t] = 128 * _mm512_reduce_add_epi32(sum);
    rows->norms[t] = sqrtf(dot(x, x, d));
}

// sums[i][0..1] = row i of the strip with each of the panel's 32 latents.
INLINE void multiply(const int32_t *strip, const uint8_t *panel, int64_t steps, __m512i sums[STRIP][2]) {
    __m512i held[STRIP][2];
#pragma GCC unroll 12
    for (int i = 0; i < STRIP; i++) held[i][0] = held[i][1] = _mm512_setzero_si512();
    for (int64_t q = 0; q < steps; q++, strip += STRIP, panel += PANEL * 4) {
        __m512i low = _mm512_loadu_si512(panel), high = _mm512_loadu_si512(panel + 64);
#pragma GCC unroll 12
        for (int i = 0; i < STRIP; i++) {
            __m512i four = _mm512_set1_epi32(strip[i]);
            held[i][0] = _mm512_dpbusd_epi32(held[i][0], low, four);
            held[i][1] = _mm512_dpbusd_epi32(held[i][1], high, four);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < STRIP; i++) sums[i][0] = held[i][0], sums[i][1] = held[i][1];
}

typedef struct {
    __m512 scales[2], bias[2];
    __mmask16 there[2];  // latents past the last are not
    int64_t first;
} Panel;

static Panel panel_of(const Search *s, int64_t p) {
    Panel panel = {.first = p * PANEL};
    for (int half = 0; half < 2; half++) {
        int64_t first = panel.first + half * LANES;
        panel.there[half] = first < s->n ? lanes(s->n - first) : 0;
        panel.scales[half] = load(panel.there[half], s->scales + first);
        panel.bias[half] = load(panel.there[half], s->bias + first);
    }
    return panel;
}

// Two vectors of sums, read as scores, into their row's pool.
INLINE void offer(const Search *s, Rows *rows, const Panel *panel, int64_t t, const __m512i sums[2]) {
    Pool *pool = &rows->pools[t];
    __m512i shift = _mm512_set1_epi32(rows->shifts[t]);
    __m512 scale = _mm512_set1_ps(rows->scales[t]), scores[2];
    __mmask16 which[2];
    for (int half = 0; half < 2; half++) {
        __m512 whole = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[half], shift));
        scores[half] = _mm512_fmadd_ps(_mm512_mul_ps(whole, scale), panel->scales[half], panel->bias[half]);
        which[half] = pool_admits(pool, panel->there[half], scores[half]);
    }
    if (__builtin_expect(!(which[0] | which[1]), 1)) return;
    pool_put(pool, which[0], scores[0], counted_from(panel->first));
    pool_put(pool, which[1], scores[1], counted_from(panel->first + LANES));
    if (pool->count > pool_capacity(s->keep)) pool_shrink(pool, s->keep);
}

static void search_strip(const Search *s, Rows *rows, const Panel *panel, int64_t from, int64_t count) {
    __m512i sums[STRIP][2];
    int64_t steps = quads(s->d);
    multiply(rows->strips + from * steps, s->packed + panel->first / PANEL * panel_size(s->d), steps, sums);
    for (int64_t i = 0; i < count; i++) offer(s, rows, panel, from + i, sums[i]);
}

// A row whose threshold was guessed too high is searched again without one. What else lies in its strip is complete,
// and admits nothing meanwhile.
static void search_again(const Search *s, Rows *rows, int64_t from, int64_t count) {
    int missed = 0;
    float kept[STRIP];
    for (int64_t i = 0; i < count; i++) {
        Pool *pool = &rows->pools[from + i];
        int short_of = pool->count < s->keep;
        kept[i] = pool->threshold;
        missed |= short_of;
        if (short_of) pool->count = 0;
        pool->threshold = short_of ? -INFINITY : INFINITY;
    }
    for (int64_t p = 0; missed && p * PANEL < s->n; p++) {
        Panel panel = panel_of(s, p);
        search_strip(s, rows, &panel, from, count);
    }
    for (int64_t i = 0; i < count; i++) rows->pools[from + i].threshold = kept[i];
}

static void begin(const Search *s, Rows *rows, const Guess *guess, int64_t first, int64_t count) {
    int64_t room = pool_room(s->keep);
    for (int64_t t = 0; t < count; t++) {
        quantise_row(rows, s->x + (first + t) * s->d, t, s->d);
        float threshold = guess_threshold(guess, rows->norms[t]);
        rows->pools[t] = (Pool){rows->keys + t * room, rows->indices + t * room, 0, threshold};
    }
}

static void finish(const Search *s, Rows *rows, Guess *guess, int64_t first, int64_t count) {
    for (int64_t t = 0; t < count; t++) {
        Pool *pool = &rows->pools[t];
        pool_shrink(pool, s->keep);
        memcpy(s->candidates + (first + t) * s->keep, pool->indices, (size_t)s->keep * sizeof(int32_t));
        guess_learn(guess, pool_least(pool) / fmaxf(rows->norms[t], FLT_MIN));
    }
}

static void search_block(const Search *s, Rows *rows, Guess *guess, int64_t first, int64_t count) {
    begin(s, rows, guess, first, count);
    for (int64_t p = 0; p * PANEL < s->n; p++) {
        Panel panel = panel_of(s, p);
        for (int64_t t = 0; t < count; t += STRIP)
            search_strip(s, rows, &panel, t, count - t < STRIP ? count - t : STRIP);
    }
    for (int64_t t = 0; t < count; t += STRIP) search_again(s, rows, t, count - t < STRIP ? count - t : STRIP);
    finish(s, rows, guess, first, count);
}

// Blocks small enough that every thread has some.
static int64_t block_rows(int64_t rows) {
    int64_t share = rounded_up(rows / omp_get_max_threads() + 1, STRIP);
    return share < BLOCK ? share : BLOCK;
}

// candidates[r] = the `keep` latents of largest rounded score in row r, ascending. d <= 65536, else sums overflow.
EXPORT int search_bytes(const Search *given) {
    const Search s = *given;
    const int64_t block = block_rows(s.rows);
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        Rows rows;
        Guess guess = {0, 0, 0};
        failed = !rows_allocate(&rows, &s);
#pragma omp for schedule(dynamic, 1)
        for (int64_t first = 0; first < s.rows; first += block)
            if (!failed) search_block(&s, &rows, &guess, first, s.rows - first < block ? s.rows - first : block);
        rows_free(&rows);
    }
    return failed ? OUT_OF_MEMORY : DONE;
}
