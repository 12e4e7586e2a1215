// Values of kernels, a thread to an entry: inner products become radial or polynomial kernels in place.
#include "philox.h"

#ifndef __CUDACC__
#define exp __builtin_exp
#define sqrt __builtin_sqrt
#endif

// kind 0: exp(-r2); 1: (1 + r) exp(-r); 2: (1 + r + r**2 / 3) exp(-r), where r2 = x[i] + y[j] - twice * product.
RANDLA_KERNEL radial(i64 size, i64 n, i64 kind, double twice, const T *x, const T *y, T *out) {
    RANDLA_EACH(e, size) {
        T squared = x[e / n] + y[e % n] - (T)twice * out[e];
        squared = squared < 0 ? (T)0 : squared;
        if (kind == 0) {
            out[e] = (T)exp(-squared);
        } else {
            T r = (T)sqrt(squared);
            out[e] = (1 + r + (kind == 2 ? squared / 3 : (T)0)) * (T)exp(-r);
        }
    }
}

RANDLA_KERNEL power(i64 size, i64 degree, double gamma, double coef0, T *out) {
    RANDLA_EACH(e, size) {
        T base = (T)gamma * out[e] + (T)coef0, value = base;
        for (i64 p = 1; p < degree; ++p) value *= base;
        out[e] = value;
    }
}

RANDLA_KERNEL laplacian_tile(i64 size, i64 n, i64 d, double gamma, const T *X, const T *Y, T *out) {
    RANDLA_EACH(e, size) {
        const T *x = X + e / n * d, *y = Y + e % n * d;
        T sum = 0;
        for (i64 c = 0; c < d; ++c) sum += x[c] > y[c] ? x[c] - y[c] : y[c] - x[c];
        out[e] = (T)exp(-(T)gamma * sum);
    }
}
