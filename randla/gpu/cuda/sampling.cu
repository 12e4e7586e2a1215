// Importance and coordinated sampling: a thread to an index or to a row.
#include "philox.h"

// 52 bits and a half: an odd multiple of 2**-53, so neither 0 nor 1, and exact.
RANDLA_KERNEL uniforms_at(i64 n, u32 k0, u32 k1, u32 stream, const i64 *index, double *out) {
    RANDLA_EACH(i, n) {
        u32 w[4];
        draw(w, k0, k1, stream, (u64)index[i], 0);
        u64 bits = (u64)(w[0] >> 5) << 26 | w[1] >> 6 | 1;
        out[i] = (double)bits * 1.1102230246251565e-16;  // 2**-53
    }
}

RANDLA_FN double raised(T x, i64 power) { return power == 2 ? (double)x * (double)x : (double)(x < 0 ? -x : x); }

RANDLA_KERNEL row_power_sums(i64 n, i64 d, i64 row_stride, i64 column_stride, i64 power, const T *A, double *out) {
    RANDLA_EACH(i, n) {
        double sum = 0;
        for (i64 j = 0; j < d; ++j) sum += raised(A[i * row_stride + j * column_stride], power);
        out[i] = sum;
    }
}

RANDLA_KERNEL csr_row_power_sums(i64 n, i64 power, const T *data, const i64 *pointers, double *out) {
    RANDLA_EACH(i, n) {
        double sum = 0;
        for (i64 p = pointers[i]; p < pointers[i + 1]; ++p) sum += raised(data[p], power);
        out[i] = sum;
    }
}
