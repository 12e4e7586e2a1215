// Products with sign tables.  Every sum belongs to one thread, which adds in the order of its list: no atomics, so a
// result does not change from run to run.
#include "philox.h"

#define LANES 32  // threads that share a row of a sparse product: a warp, which reads each entry of the lists once

// Sorting these keys turns a table over: position first, then item and sign as 2 * item + sign.
RANDLA_KERNEL table_keys(i64 n, const i64 *pointers, const i64 *packed, i64 *keys) {
    RANDLA_EACH(i, n)
    for (i64 e = pointers[i]; e < pointers[i + 1]; ++e) keys[e] = (packed[e] >> 1) * 2 * n + 2 * i + (packed[e] & 1);
}

// out += the signed rows of A that each list names; one thread to an entry of out (n of them), both row-major.
RANDLA_KERNEL signed_sums(i64 n, i64 width, const i64 *pointers, const i64 *packed, const T *A, T *out) {
    RANDLA_EACH(q, n) {
        i64 i = q / width, column = q % width;
        T sum = 0;
        for (i64 e = pointers[i]; e < pointers[i + 1]; ++e) {
            T value = A[(packed[e] >> 1) * width + column];
            sum += packed[e] & 1 ? -value : value;
        }
        out[q] += sum;
    }
}

// out += L @ R for CSR matrices L and R; thread `lane` of a row owns the columns that leave the remainder `lane`.
RANDLA_KERNEL sparse_product(i64 n, const i64 *lp, const i64 *li, const T *lv, const i64 *rp, const i64 *ri, const T *rv,
                             i64 row_stride, i64 column_stride, T *out) {
    RANDLA_EACH(q, n) {
        i64 row = q / LANES, lane = q % LANES;
        for (i64 e = lp[row]; e < lp[row + 1]; ++e)
            for (i64 f = rp[li[e]]; f < rp[li[e] + 1]; ++f)
                if (ri[f] % LANES == lane) out[row * row_stride + ri[f] * column_stride] += lv[e] * rv[f];
    }
}
