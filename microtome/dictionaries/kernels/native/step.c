// The sparse halves of a training step: what the active rows add up to, and weights moved by what they were told.
#include "bytes.h"
#include <math.h>

// ---- compare: error = sum of values * decoder rows - target, and its product with each of those rows ----

typedef struct {
    const float *target, *decoder, *values;
    const int64_t *indices;
    int64_t d, k;
    float *error, *products;
    double *squares;
} Comparison;

INLINE void add_four(float *sum, const float *const rows[4], const float *factors, int64_t j, __mmask16 mask) {
    __m512 total = load(mask, sum + j);
    for (int i = 0; i < 4; i++) total = _mm512_fmadd_ps(_mm512_set1_ps(factors[i]), load(mask, rows[i] + j), total);
    store(mask, sum + j, total);
}

// sum += four rows, each by its factor: four at a time, so that the sum is fetched and put back once for all of them.
static void add_rows(float *sum, const float *const rows[4], const float *factors, int64_t d) {
    int64_t j = 0;
    for (; j + LANES <= d; j += LANES) add_four(sum, rows, factors, j, ALL);
    if (j < d) add_four(sum, rows, factors, j, lanes(d - j));
}

static void decode_row(const Comparison *c, int64_t r, float *error) {
    const int64_t *indices = c->indices + r * c->k;
    const float *target = c->target + r * c->d;
    for (int64_t j = 0; j < c->d; j++) error[j] = -target[j];
    for (int64_t i = 0; i < c->k; i += 4) {
        const float *rows[4];
        float factors[4];
        for (int64_t q = 0; q < 4; q++) {  // past the last entry: any row, times zero
            int there = i + q < c->k;
            rows[q] = c->decoder + indices[there ? i + q : i] * c->d;
            factors[q] = there ? c->values[r * c->k + i + q] : 0;
            if (i + q + 4 < c->k) prefetch_row(c->decoder + indices[i + q + 4] * c->d, c->d);
        }
        add_rows(error, rows, factors, c->d);
    }
}

static double sum_of_squares(const float *row, int64_t d) {
    __m512d low = _mm512_setzero_pd(), high = low;
    for (int64_t j = 0; j < d; j += LANES) {
        __m512 here = load(lanes(d - j), row + j);
        __m512d first = _mm512_cvtps_pd(_mm512_castps512_ps256(here));
        __m512d second = _mm512_cvtps_pd(_mm512_extractf32x8_ps(here, 1));
        low = _mm512_fmadd_pd(first, first, low);
        high = _mm512_fmadd_pd(second, second, high);
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

// The decoder rows of a row's entries are still in the cache when the products are made.
EXPORT int compare(const Comparison *given, int64_t rows) {
    const Comparison c = *given;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *error = c.error + r * c.d;
        decode_row(&c, r, error);
        c.squares[r] = sum_of_squares(error, c.d);
        for (int64_t i = r * c.k; i < (r + 1) * c.k; i++)
            c.products[i] = dot(error, c.decoder + c.indices[i] * c.d, c.d);
    }
    return DONE;
}

// ---- update: the entries of each latent, their gradients, Adam, and the copies that the searches read ----

typedef struct {
    float *weight, *mean, *square;  // a parameter with Adam's two moments
} Moved;

typedef struct {
    float rate, root, eps, beta1, beta2;  // rate = lr / (1 - beta1^t), root = 1 / sqrt(1 - beta2^t)
    float rest1, rest2;                   // 1 - beta1 and 1 - beta2
} Adam;

typedef struct {
    int64_t rows, n, d, k;
    const float *x, *error, *values, *gradients;
    const int64_t *indices;
    Moved encoder, bias, decoder;
    Adam adam;
    const int32_t *slots;  // of each latent, its row in the extra gradients, or -1; NULL where there are none
    const float *extra_encoder, *extra_bias, *extra_decoder;
    uint16_t *rounded;  // encoder in bfloat16, or NULL
    uint8_t *packed;    // encoder in bytes (bytes.h), or NULL
    float *scales;
    uint8_t *active;
} Update;

typedef struct {
    int64_t *starts;  // of each latent's entries in the arrays below; n + 1 of them
    int32_t *rows;
    float *values, *gradients;
} Entries;

static void entries_free(Entries *entries) {
    free(entries->starts);
    free(entries->rows);
    free(entries->values);
    free(entries->gradients);
}

static int entries_allocate(Entries *entries, int64_t n, int64_t count) {
    entries->starts = calloc((size_t)n + 2, sizeof(int64_t));
    entries->rows = lines(count, sizeof(int32_t));
    entries->values = lines(count, sizeof(float));
    entries->gradients = lines(count, sizeof(float));
    return entries->starts && entries->rows && entries->values && entries->gradients;
}

INLINE int says_something(const Update *u, int64_t i) {
    return u->values[i] != 0 || u->gradients[i] != 0;
}

// Counting sort by latent. Entries of one latent stay in the order of their rows, so that sums come out the same
// whoever makes them.
static void entries_fill(Entries *entries, const Update *u) {
    int64_t *next = entries->starts + 1;  // after the second pass, where the next latent starts: so shifted by one
    for (int64_t i = 0; i < u->rows * u->k; i++)
        if (says_something(u, i)) next[u->indices[i] + 1]++;
    for (int64_t j = 0; j < u->n; j++) next[j + 1] += next[j];
    for (int64_t i = 0; i < u->rows * u->k; i++) {
        if (!says_something(u, i)) continue;
        int64_t place = next[u->indices[i]]++;
        entries->rows[place] = (int32_t)(i / u->k);
        entries->values[place] = u->values[i];
        entries->gradients[place] = u->gradients[i];
    }
}

// Sixteen columns times `width` of sum(factor * row of x) over the entries, held in registers meanwhile. `mask` is for
// the last sixteen.
INLINE void sum_columns(float *sum, const float *x, const int32_t *rows, const float *factors, int64_t count, int64_t d,
                        int64_t j, int width, __mmask16 mask) {
    __m512 sums[16];
#pragma GCC unroll 16
    for (int w = 0; w < width; w++) sums[w] = _mm512_setzero_ps();
    for (int64_t e = 0; e < count; e++) {
        const float *row = x + rows[e] * d + j, *ahead = x + rows[e + 2 < count ? e + 2 : e] * d + j;
        __m512 factor = _mm512_set1_ps(factors[e]);
#pragma GCC unroll 16
        for (int w = 0; w < width; w++) {
            _mm_prefetch((const char *)(ahead + w * LANES), _MM_HINT_T0);
            sums[w] = _mm512_fmadd_ps(factor, load(w + 1 < width ? ALL : mask, row + w * LANES), sums[w]);
        }
    }
#pragma GCC unroll 16
    for (int w = 0; w < width; w++) _mm512_store_ps(sum + j + w * LANES, sums[w]);
}

// sum = sum of factor * row of x. `sum` has room for d rounded up to sixteen.
static void sum_rows(float *sum, const float *x, const int32_t *rows, const float *factors, int64_t count, int64_t d) {
    int64_t j = 0;
    for (; j + 16 * LANES <= d; j += 16 * LANES) sum_columns(sum, x, rows, factors, count, d, j, 16, ALL);
    for (; j + 4 * LANES <= d; j += 4 * LANES) sum_columns(sum, x, rows, factors, count, d, j, 4, ALL);
    for (; j < d; j += LANES) sum_columns(sum, x, rows, factors, count, d, j, 1, lanes(d - j));
}

static void add_row(float *sum, const float *row, int64_t d) {
    for (int64_t j = 0; j < d; j++) sum[j] += row[j];
}

INLINE void adam_lanes(const Moved *moved, int64_t at, __m512 gradient, const Adam *a, __mmask16 mask) {
    __m512 mean = _mm512_mul_ps(_mm512_set1_ps(a->beta1), load(mask, moved->mean + at));
    __m512 square = _mm512_mul_ps(_mm512_set1_ps(a->beta2), load(mask, moved->square + at));
    mean = _mm512_fmadd_ps(_mm512_set1_ps(a->rest1), gradient, mean);
    square = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(a->rest2), gradient), gradient, square);
    __m512 size = _mm512_fmadd_ps(_mm512_sqrt_ps(square), _mm512_set1_ps(a->root), _mm512_set1_ps(a->eps));
    __m512 way = _mm512_div_ps(_mm512_mul_ps(_mm512_set1_ps(a->rate), mean), size);
    store(mask, moved->mean + at, mean);
    store(mask, moved->square + at, square);
    store(mask, moved->weight + at, _mm512_sub_ps(load(mask, moved->weight + at), way));
}

// Kingma and Ba 2014 (arXiv 1412.6980), algorithm 1, on `d` numbers from `at`.
static void adam(const Moved *moved, int64_t at, const float *gradient, int64_t d, const Adam *a) {
    int64_t j = 0;
    for (; j + LANES <= d; j += LANES) adam_lanes(moved, at + j, _mm512_load_ps(gradient + j), a, ALL);
    if (j < d) adam_lanes(moved, at + j, load(lanes(d - j), gradient + j), a, lanes(d - j));
}

// A row of length zero stays as it is.
static void give_unit_length(float *row, int64_t d) {
    __m512 factor = _mm512_set1_ps((float)(1 / fmax(sqrt(sum_of_squares(row, d)), 1e-12)));
    for (int64_t j = 0; j < d; j += LANES) {
        __mmask16 mask = lanes(d - j);
        store(mask, row + j, _mm512_mul_ps(load(mask, row + j), factor));
    }
}

// To the nearest bfloat16, ties to even, as torch does it; written out, since not every AVX-512 has the instruction.
static void round_row(const float *row, uint16_t *to, int64_t d) {
    for (int64_t j = 0; j < d; j += LANES) {
        __mmask16 mask = lanes(d - j);
        __m512 values = load(mask, row + j);
        __m512i bits = _mm512_castps_si512(values);
        __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        __m512i near = _mm512_add_epi32(bits, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff)));
        __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
        near = _mm512_mask_mov_epi32(near, nan, _mm512_set1_epi32(0x7fc00000));
        _mm256_mask_storeu_epi16(to + j, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(near, 16)));
    }
}

static void gather_gradients(const Update *u, const Entries *entries, int64_t j, float *encoder, float *decoder,
                             float *bias) {
    int64_t first = entries->starts[j], count = entries->starts[j + 1] - first;
    const int32_t *rows = entries->rows + first;
    sum_rows(decoder, u->error, rows, entries->values + first, count, u->d);
    sum_rows(encoder, u->x, rows, entries->gradients + first, count, u->d);
    *bias = 0;
    for (int64_t e = 0; e < count; e++) *bias += entries->gradients[first + e];
    if (!u->slots || u->slots[j] < 0) return;
    add_row(encoder, u->extra_encoder + u->slots[j] * u->d, u->d);
    add_row(decoder, u->extra_decoder + u->slots[j] * u->d, u->d);
    *bias += u->extra_bias[u->slots[j]];
}

static uint8_t was_active(const Entries *entries, int64_t j) {
    for (int64_t e = entries->starts[j]; e < entries->starts[j + 1]; e++)
        if (entries->values[e] > 0) return 1;
    return 0;
}

// One latent: both its rows are gathered, moved and copied while they lie in the first cache.
static void move_latent(const Update *u, const Entries *entries, int64_t j, float *encoder, float *decoder) {
    int64_t at = j * u->d;
    float bias[LANES] __attribute__((aligned(LINE))) = {0};
    gather_gradients(u, entries, j, encoder, decoder, bias);
    adam(&u->encoder, at, encoder, u->d, &u->adam);
    adam(&u->decoder, at, decoder, u->d, &u->adam);
    adam(&u->bias, j, bias, 1, &u->adam);
    give_unit_length(u->decoder.weight + at, u->d);
    u->active[j] = was_active(entries, j);
    if (u->rounded) round_row(u->encoder.weight + at, u->rounded + at, u->d);
    if (u->packed) pack_row(u->encoder.weight + at, j, u->d, u->packed, u->scales);
}

// The moments of a latent that is never active shrink for ever; numbers below the smallest normal one would slow every
// later step down, so they become zero. Returns what to set back.
static unsigned flush_tiny(void) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
}

static int move_all(const Update *u, const Entries *entries) {
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        unsigned before = flush_tiny();
        float *encoder = lines(rounded_up(u->d, LANES), sizeof(float));
        float *decoder = lines(rounded_up(u->d, LANES), sizeof(float));
        failed = !encoder || !decoder;
#pragma omp for schedule(dynamic, PANEL)  // whole panels, since the rows of one share cache lines where they are packed
        for (int64_t j = 0; j < u->n; j++)
            if (!failed) move_latent(u, entries, j, encoder, decoder);
        free(encoder);
        free(decoder);
        _mm_setcsr(before);
    }
    return failed ? OUT_OF_MEMORY : DONE;
}

EXPORT int update(const Update *given) {
    const Update u = *given;
    Entries entries;
    int status = OUT_OF_MEMORY;
    if (entries_allocate(&entries, u.n, u.rows * u.k)) {
        entries_fill(&entries, &u);
        status = move_all(&u, &entries);
    }
    entries_free(&entries);
    return status;
}

// The copies of weights that came from outside; either may be NULL.
EXPORT int copy_encoder(const float *weights, int64_t n, int64_t d, uint16_t *rounded, uint8_t *packed, float *scales) {
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < (n + PANEL - 1) / PANEL; panel++)
        for (int64_t j = panel * PANEL; j < n && j < (panel + 1) * PANEL; j++) {
            if (rounded) round_row(weights + j * d, rounded + j * d, d);
            if (packed) pack_row(weights + j * d, j, d, packed, scales);
        }
    return DONE;
}
