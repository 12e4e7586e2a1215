// Random tables, equal bit for bit to randla.kernels.reference.  Compiled without fused multiply-add.
#include "philox.h"

RANDLA_KERNEL philox_words(i64 n, u32 k0, u32 k1, u32 stream, i64 start, i64 n_lanes, u32 *out) {
    RANDLA_EACH(q, n) draw(out + 4 * q, k0, k1, stream, (u64)(start + q / n_lanes), (u32)(q % n_lanes));
}

RANDLA_KERNEL uniforms(i64 n, u32 k0, u32 k1, u32 stream, i64 start, double *out) {
    RANDLA_EACH(i, n) {
        u32 w[4];
        draw(w, k0, k1, stream, (u64)(start + i), 0);
        out[i] = ((w[0] >> 5) * 67108864.0 + (w[1] >> 6)) / 9007199254740992.0;  // 2**26 and 2**53
    }
}

// High 64 bits of (high * 2**32 + low) * n for n <= 2**32: a bounded integer by multiply-shift.
RANDLA_FN i64 scaled(u32 low, u32 high, u64 n) { return (i64)((high * n + ((low * n) >> 32)) >> 32); }

RANDLA_KERNEL uniform_rows(i64 n, u32 k0, u32 k1, u32 stream, i64 bound, i64 *out) {
    RANDLA_EACH(i, n) {
        u32 w[4];
        draw(w, k0, k1, stream, (u64)i, 0);
        out[i] = scaled(w[0], w[1], (u64)bound);
    }
}

// A Feistel permutation of the numbers of 2 * half bits, repeated until the value falls below n.
RANDLA_FN u64 permuted(u64 value, u32 k0, u32 k1, u32 stream, i64 half, u64 n) {
    u64 mask = ((u64)1 << half) - 1;
    do {
        u64 left = value >> half, right = value & mask;
        for (u32 r = 0; r < 10; ++r) {
            u32 w[4];
            draw(w, k0, k1, stream, right, r);
            u64 next = left ^ (w[0] & mask);
            left = right;
            right = next;
        }
        value = left << half | right;
    } while (value >= n);
    return value;
}

RANDLA_KERNEL distinct_rows(i64 n, u32 k0, u32 k1, u32 stream, i64 half, i64 bound, i64 *out) {
    RANDLA_EACH(i, n) out[i] = (i64)permuted((u64)i, k0, k1, stream, half, (u64)bound);
}

RANDLA_KERNEL sparse_sign_table(i64 n, u32 k0, u32 k1, u32 stream, i64 start, i64 nnz, i64 owned, i64 sketch_size,
                                int *out) {
    RANDLA_EACH(i, n)
    sparse_sign_column((u64)(start + i), k0, k1, stream, nnz, owned, sketch_size, out + i * nnz);
}

// Walks down a column from nonzero to nonzero and returns their number; writes them unless `out` is null.
RANDLA_FN i64 sparse_jl_column(u64 index, u32 k0, u32 k1, u32 stream, i64 sketch_size, i64 n_thresholds,
                               const i64 *thresholds, int *out) {
    u32 w[4];
    i64 row = -1;
    for (i64 count = 0;; ++count) {
        if (count % 4 == 0) draw(w, k0, k1, stream, index, (u32)(count / 4));
        u32 word = pick(w, (u32)count % 4);
        i64 lo = 0, hi = n_thresholds;  // the first of the descending thresholds that is not above word >> 1
        while (lo < hi) {
            i64 middle = (lo + hi) / 2;
            if (thresholds[middle] > (i64)(word >> 1)) lo = middle + 1;
            else hi = middle;
        }
        row += lo;
        if (row >= sketch_size) return count;
        if (out) out[count] = (int)(2 * row + (word & 1));
    }
}

RANDLA_KERNEL sparse_jl_count(i64 n, u32 k0, u32 k1, u32 stream, i64 start, i64 sketch_size, i64 n_thresholds,
                              const i64 *thresholds, i64 *counts) {
    RANDLA_EACH(i, n)
    counts[i] = sparse_jl_column((u64)(start + i), k0, k1, stream, sketch_size, n_thresholds, thresholds, 0);
}

RANDLA_KERNEL sparse_jl_fill(i64 n, u32 k0, u32 k1, u32 stream, i64 start, i64 sketch_size, i64 n_thresholds,
                             const i64 *thresholds, const i64 *pointers, int *out) {
    RANDLA_EACH(i, n)
    sparse_jl_column((u64)(start + i), k0, k1, stream, sketch_size, n_thresholds, thresholds, out + pointers[i]);
}

RANDLA_KERNEL less_table(i64 n, u32 k0, u32 k1, u32 stream, i64 start, i64 nnz, i64 bound, i64 *out) {
    RANDLA_EACH(q, n) {
        u32 w[4];
        draw(w, k0, k1, stream, (u64)(start + q / nnz), (u32)(q % nnz));
        out[q] = 2 * scaled(w[0], w[1], (u64)bound) + (w[2] & 1);
    }
}

RANDLA_KERNEL sign_bits(i64 n, u32 k0, u32 k1, u32 stream, i64 start, i64 lane, signed char *out) {
    RANDLA_EACH(i, n) {
        u64 index = (u64)(start + i);
        out[i] = sign_word(k0, k1, stream, index, (u32)lane) >> index % 32 & 1 ? -1 : 1;
    }
}

// The two dense tables are filled four entries to a thread: neighbours write neighbouring addresses.

RANDLA_KERNEL rademacher_table(i64 n, u32 k0, u32 k1, u32 stream, i64 start, i64 sketch_size, i64 n_groups, T *out) {
    RANDLA_EACH(q, n) {
        i64 i = q / n_groups, row = 4 * (q % n_groups);
        u32 w[4];
        draw(w, k0, k1, stream, (u64)(start + i), (u32)(row / 128));
        u32 word = pick(w, (u32)(row / 32) % 4);
        for (i64 j = row; j < row + 4 && j < sketch_size; ++j) out[i * sketch_size + j] = word >> j % 32 & 1 ? -1 : 1;
    }
}

union bits {
    float value;
    int word;
};

// sqrt(-2 log u) for u = (w >> 1 | 1) / 2**31; coefficients of the Cephes logf.
RANDLA_FN float gaussian_radius(u32 w) {
    union bits x, m;
    x.value = (float)(int)(w >> 1 | 1);
    int shifted = x.word - 0x3F3504F3;  // bits of sqrt(1/2): x = m 2**e with m in [sqrt(1/2), sqrt(2))
    float e = (float)((shifted >> 23) - 31);
    m.word = (shifted & 0x007FFFFF) + 0x3F3504F3;
    float f = m.value - 1.0f, z = f * f, y = 7.0376836292e-2f;
    y = y * f + -1.1514610310e-1f;
    y = y * f + 1.1676998740e-1f;
    y = y * f + -1.2420140846e-1f;
    y = y * f + 1.4249322787e-1f;
    y = y * f + -1.6668057665e-1f;
    y = y * f + 2.0000714765e-1f;
    y = y * f + -2.4999993993e-1f;
    y = y * f + 3.3333331174e-1f;
    y = y * f * z + e * -2.12194440e-4f - 0.5f * z;
    float square = -2.0f * ((f + y) + e * 0.693359375f);
    return sqrtf(square > 0.0f ? square : 0.0f);
}

// Two normal deviates from two words (Box and Muller); coefficients of the Cephes sinf and cosf.
RANDLA_FN void gaussian_pair(u32 w0, u32 w1, float *out) {
    float f = (float)(int)(w1 << 2) * 2.3283064365386963e-10f * 1.57079632679f, z = f * f;  // 2**-32, pi / 2
    float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z + -1.6666654611e-1f) * z * f + f;
    float c = (2.443315711809948e-5f * z + -1.388731625493765e-3f) * z + 4.166664568298827e-2f;
    c = c * z * z - 0.5f * z + 1.0f;
    u32 quarter = w1 >> 30;
    float cosine = quarter & 1 ? -s : c, sine = quarter & 1 ? c : s, radius = gaussian_radius(w0);
    out[0] = radius * (quarter & 2 ? -cosine : cosine);
    out[1] = radius * (quarter & 2 ? -sine : sine);
}

RANDLA_KERNEL gaussian_table(i64 n, u32 k0, u32 k1, u32 stream, i64 start, i64 sketch_size, i64 n_groups, T *out) {
    RANDLA_EACH(q, n) {
        i64 i = q / n_groups, row = 4 * (q % n_groups);
        u32 w[4];
        float value[4];
        draw(w, k0, k1, stream, (u64)(start + i), (u32)(row / 4));
        gaussian_pair(w[0], w[1], value);
        gaussian_pair(w[2], w[3], value + 2);
        for (int j = 0; j < 4 && row + j < sketch_size; ++j) out[i * sketch_size + row + j] = value[j];
    }
}
