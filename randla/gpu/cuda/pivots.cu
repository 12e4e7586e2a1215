// Pivots of Cholesky factors: arrival times of exponential races, and elimination inside a block of at most a few
// hundred candidates, which one thread block does from beginning to end.
#include "philox.h"

#ifndef __CUDACC__
#define log1p __builtin_log1p
#define sqrt __builtin_sqrt
#endif

// out[s, j] = E(start + s, j) / weights[j], infinity for weights that are not positive.
RANDLA_KERNEL race_times(i64 size, i64 n, u32 k0, u32 k1, u32 stream, i64 tail, i64 start, const double *weights,
                         double *out) {
    RANDLA_EACH(e, size) {
        i64 s = start + e / n, j = e % n;
        u32 w[4];
        draw(w, k0, k1, stream, (u64)s, (u32)(j / 4));
        double word = (double)pick(w, (u32)(j % 4));
        draw(w, k0, k1, (u32)tail, (u64)j, (u32)s);
        double h = (double)((u64)(w[0] >> 5) << 25 | w[1] >> 7);
        double u = (word + (h + 0.5) / 4503599627370496.0) / 4294967296.0;
        out[e] = weights[j] > 0 ? -log1p(-u) / weights[j] : 1.0 / 0.0;
    }
}

// Column a of the factor L (b, width) from pivot p, and the diagonal after it; all threads of the block call it.
RANDLA_FN void eliminate(i64 b, i64 width, const double *H, double *L, double *d, i64 p, i64 a, int thread, int threads) {
    double root = sqrt(d[p]);
    for (i64 i = thread; i < b; i += threads) {
        if (i == p) continue;
        double value = H[p * b + i];
        for (i64 c = 0; c < a; ++c) value -= L[i * width + c] * L[p * width + c];
        value /= root;
        L[i * width + a] = value;
        d[i] -= value * value;
    }
    __syncthreads();
    if (thread == 0) {
        L[p * width + a] = root;
        d[p] = 0;
    }
    __syncthreads();
}

// See the reference: row s of index and times are the first arrivals of race s by the diagonal `before`.
RANDLA_KERNEL race_pivots(i64 once, i64 b, i64 races, i64 count, const double *H, double *d, const double *before,
                          const i64 *index, const double *times, const double *floor, i64 *chosen, double *L) {
    __shared__ i64 winner;
    int thread = threadIdx.x, threads = blockDim.x;
    if (once < 1 || blockIdx.x > 0) return;
    for (i64 s = 0; s < races; ++s) {
        if (thread == 0) {
            double best = 1.0 / 0.0;
            winner = -1;
            for (i64 c = 0; c < count; ++c) {
                i64 j = index[s * count + c];
                double early = times[s * count + c];
                if (j < 0 || early >= best) break;
                if (!(d[j] > floor[j])) continue;
                double late = early * (before[j] / d[j]);
                if (late < best) {
                    best = late;
                    winner = j;
                }
            }
            i64 last = s * count + count - 1;
            if (index[last] >= 0 && times[last] < best) winner = -1;
            if (winner >= 0) chosen[s] = winner;
        }
        __syncthreads();
        i64 p = winner;
        if (p < 0) return;
        eliminate(b, races, H, L, d, p, s, thread, threads);
    }
}

RANDLA_KERNEL greedy_pivots(i64 once, i64 b, double share, const double *H, double *d, const double *floor, i64 *chosen,
                            double *L) {
    __shared__ i64 winner;
    __shared__ double limit;
    int thread = threadIdx.x, threads = blockDim.x;
    if (once < 1 || blockIdx.x > 0) return;
    for (i64 a = 0; a < b; ++a) {
        if (thread == 0) {
            double sum = 0;
            i64 p = 0;
            for (i64 i = 0; i < b; ++i) {
                sum += d[i];
                if (d[i] > d[p]) p = i;
            }
            if (a == 0) limit = share * sum;
            winner = d[p] > floor[p] && sum > limit ? p : -1;
            if (winner >= 0) chosen[a] = winner;
        }
        __syncthreads();
        i64 p = winner;
        if (p < 0) return;
        eliminate(b, b, H, L, d, p, a, thread, threads);
        for (i64 i = thread; i < b; i += threads)
            if (d[i] <= floor[i]) d[i] = 0;
        __syncthreads();
    }
}
