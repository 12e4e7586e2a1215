// Symmetric nonnegative factorisation by exact coordinate descent: one thread block, as entries depend on each other.
#include "philox.h"

#ifndef __CUDACC__
#define sqrt __builtin_sqrt
#define cbrt __builtin_cbrt
#endif

// The argmin of x^4 / 4 + a x^2 / 2 + b x over x >= 0: 0, or the largest root of x^3 + a x + b.  One real root by Cardano
// without cancellation, the largest of three by Newton from above.
RANDLA_FN double stationary(double a, double b) {
    double half = b / 2, third = a / 3, square = half * half + third * third * third;
    if (square > 0) {
        if (b >= 0) return 0;
        double u = cbrt(sqrt(square) - half), v = third / u;
        return third > 0 ? -b / (u * u + third + v * v) : u - v;
    }
    if (!(third < 0)) return 0;
    double x = 2 * sqrt(-third);
    for (int step = 0; step < 60; ++step) {
        double slope = 3 * x * x + a;
        if (!(slope > 0)) break;
        double lower = x - (x * x * x + a * x + b) / slope;
        if (!(lower < x)) break;
        x = lower;
    }
    return x * (x * x / 4 + a / 2) + b < 0 ? x : 0;
}

// Threads own entries of p = A[i] H and of q = H[i] G; the first one sets an entry of H, and all follow with q and G.
// A dense A has rows of n entries, indptr and indices belong to a sparse one.
RANDLA_KERNEL symmetric_sweep(i64 once, i64 n, i64 r, i64 sparse, const T *A, const i64 *indices, const i64 *indptr,
                              double *G, double *p, double *q, T *H, double *fall) {
    __shared__ double before, after;
    i64 thread = threadIdx.x, threads = blockDim.x;
    if (once < 1 || blockIdx.x > 0) return;
    double total = 0;
    for (i64 i = 0; i < n; ++i) {
        i64 first = sparse ? indptr[i] : i * n, last = sparse ? indptr[i + 1] : (i + 1) * n;
        double square = 0, diagonal = 0;
        for (i64 k = thread; k < r; k += threads) {
            double sum = 0;
            for (i64 e = first; e < last; ++e) {
                i64 j = sparse ? indices[e] : e - first;
                sum += (double)A[e] * (double)H[j * r + k];
            }
            p[k] = sum;
            sum = 0;
            for (i64 j = 0; j < r; ++j) sum += (double)H[i * r + j] * G[j * r + k];
            q[k] = sum;
        }
        if (thread == 0) {
            for (i64 k = 0; k < r; ++k) square += (double)H[i * r + k] * (double)H[i * r + k];
            for (i64 e = first; e < last; ++e)
                if ((sparse ? indices[e] : e - first) == i) diagonal = (double)A[e];
        }
        __syncthreads();
        for (i64 k = 0; k < r; ++k) {
            if (thread == 0) {
                double h = (double)H[i * r + k], a = G[k * r + k] + square - diagonal - 2 * h * h;
                double b = q[k] - p[k] - a * h - h * h * h;
                H[i * r + k] = (T)stationary(a, b);
                double x = (double)H[i * r + k];
                total += (h - x) * ((h + x) * (h * h + x * x + 2 * a) + 4 * b);
                square += x * x - h * h;
                before = h;
                after = x;
            }
            __syncthreads();
            double h = before, x = after, step = x - h;
            for (i64 m = thread; m < r; m += threads) {
                double old = G[k * r + m], now = old + (m == k ? x + h : (double)H[i * r + m]) * step;
                q[m] += x * now - h * old;
                G[k * r + m] = now;
                G[m * r + k] = now;
            }
            __syncthreads();
        }
    }
    if (thread == 0) fall[0] = total;
}
