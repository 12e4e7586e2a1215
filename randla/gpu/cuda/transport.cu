// Passes over the plans of entropic transport, T_ij = exp((f_i + g_j - C_ij) / reg), in double precision.
//
// Costs are read, or made from points where they are needed: HEIGHT rows at a time, so that a column's coordinates are
// loaded once for all of them.  A thread block takes HEIGHT rows and folds what its threads found as a tree; sums of
// columns belong to threads, one for each column and chunk of rows, and chunks are added in their order.  No atomics, so
// a result does not change from run to run.
#include "philox.h"

#define HEIGHT 4
#define STORED 0
#define EUCLIDEAN 2
#define CITYBLOCK 3
#define SOFTMIN 0  // what a pass over the rows leaves: soft minima, potentials of a sweep, or sums of a plan
#define SWEEP 1
#define LOWEST -1.7976931348623157e308  // the top of no terms; -inf would make NaN of its differences
#define LEAST -708.0                    // exponentials below are 0, as on the CPU: they would be subnormal
#define LEAST_NORMAL 2.3e-308
#define INFINITE (1.0 / 0.0)
#define BINS 64  // powers of two below the largest entry of a row

// C (n, m) for STORED, or the points X (n, d) of the rows and the coordinates Y (d, m) of the columns.
struct costs {
    i64 metric, n, m, d;
    const T *C;
    const double *X, *Y;
};

// c[a] = C_i+a,j; rows beyond the last one repeat it.
RANDLA_FN void make_costs(struct costs s, i64 i, i64 j, double *c) {
    i64 row[HEIGHT];
#pragma unroll
    for (int a = 0; a < HEIGHT; ++a) {
        row[a] = i + a < s.n ? i + a : s.n - 1;
        c[a] = s.metric == STORED ? (double)s.C[row[a] * s.m + j] : 0;
    }
    if (s.metric == STORED) return;
    for (i64 k = 0; k < s.d; ++k) {
        double y = s.Y[k * s.m + j];
#pragma unroll
        for (int a = 0; a < HEIGHT; ++a) {
            double apart = s.X[row[a] * s.d + k] - y;
            c[a] += s.metric == CITYBLOCK ? fabs(apart) : apart * apart;
        }
    }
#pragma unroll
    for (int a = 0; a < HEIGHT; ++a) c[a] = s.metric == EUCLIDEAN ? sqrt(c[a]) : c[a];
}

RANDLA_FN double exponential(double x) { return x < LEAST ? 0 : exp(x); }

// --- rows ------------------------------------------------------------------------------------------------------------

// What the threads of a block know of HEIGHT rows: the largest exponent, the sum of exp(exponent - top), and that of its
// products with the costs, thread by thread.
struct folds {
    i64 threads;
    double *all;
};

RANDLA_FN double *fold(struct folds s, int a, int which, i64 thread) {
    return s.all + (a * 3 + which) * s.threads + thread;
}

// Two sums, each relative to a top of its own, become one.
RANDLA_FN void merge(struct folds s, int a, i64 mine, i64 other) {
    double left = *fold(s, a, 0, mine), right = *fold(s, a, 0, other), top = left > right ? left : right;
    double scale = exp(left - top), share = exp(right - top);
    *fold(s, a, 0, mine) = top;
#pragma unroll
    for (int q = 1; q < 3; ++q) *fold(s, a, q, mine) = *fold(s, a, q, mine) * scale + *fold(s, a, q, other) * share;
}

// `given`: the sums a of a SWEEP, the potentials f of a plan.  T_ij = factor_i exp((g_j - C_ij) / reg - top_i).
RANDLA_FN void finish(i64 kind, double reg, double given, double top, double total, double price, double *out,
                      double *factor, double *prices) {
    bool empty = total == 0;
    if (kind == SOFTMIN) {
        *out = empty ? INFINITE : -reg * (top + log(total));
    } else if (kind == SWEEP) {
        *factor = empty ? 0 : given / total;
        *out = given == 0 ? -INFINITE : empty ? INFINITE : reg * (log(given / total) - top);
    } else {
        double level = given / reg + top;
        *factor = !empty && level > -700 ? exp(level) : 0;  // else all of the row would be subnormal
        *out = total * *factor;
        *prices = price * *factor;
    }
}

RANDLA_KERNEL row_pass(i64 blocks, i64 kind, i64 metric, i64 n, i64 m, i64 d, double reg, const T *C, const double *X,
                       const double *Y, const double *g, const double *given, double *tops, double *out,
                       double *factors, double *prices) {
    RANDLA_SHARED(shared);
    struct costs s = {metric, n, m, d, C, X, Y};
    struct folds all = {blockDim.x, shared};
    i64 thread = threadIdx.x, threads = blockDim.x;
    double scale = 1 / reg;
    for (i64 block = blockIdx.x; block < blocks; block += gridDim.x) {
        double top[HEIGHT], total[HEIGHT], price[HEIGHT], c[HEIGHT];
#pragma unroll
        for (int a = 0; a < HEIGHT; ++a) {
            top[a] = LOWEST;
            total[a] = price[a] = 0;
        }
        for (i64 j = thread; j < m; j += threads) {
            make_costs(s, block * HEIGHT, j, c);
#pragma unroll
            for (int a = 0; a < HEIGHT; ++a) {
                double value = scale * (g[j] - c[a]), e = exp(-fabs(value - top[a]));
                bool above = value > top[a];  // then what was summed shrinks by e, else the new term is e
                top[a] = above ? value : top[a];
                total[a] = above ? total[a] * e + 1 : total[a] + e;
                price[a] = above ? price[a] * e + c[a] : e > 0 ? price[a] + e * c[a] : price[a];
            }
        }
#pragma unroll
        for (int a = 0; a < HEIGHT; ++a) {
            *fold(all, a, 0, thread) = top[a];
            *fold(all, a, 1, thread) = total[a];
            *fold(all, a, 2, thread) = price[a];
        }
        __syncthreads();
        for (i64 half = threads / 2; half > 0; half /= 2) {
            for (i64 e = thread; e < HEIGHT * half; e += threads) merge(all, (int)(e / half), e % half, e % half + half);
            __syncthreads();
        }
        i64 i = block * HEIGHT + thread;
        if (thread < HEIGHT && i < n) {
            double sum = *fold(all, (int)thread, 1, 0);
            tops[i] = *fold(all, (int)thread, 0, 0);
            finish(kind, reg, given[i], tops[i], sum, *fold(all, (int)thread, 2, 0), out + i, factors + i, prices + i);
        }
        __syncthreads();  // the next rows write over the sums
    }
}

// --- entries and columns ---------------------------------------------------------------------------------------------

// Item (chunk, j): the sum of T_ij over the rows of a chunk.
RANDLA_KERNEL column_parts(i64 items, i64 rows, i64 metric, i64 n, i64 m, i64 d, double reg, const T *C,
                           const double *X, const double *Y, const double *g, const double *tops,
                           const double *factors, double *parts) {
    struct costs s = {metric, n, m, d, C, X, Y};
    double scale = 1 / reg;
    RANDLA_EACH(item, items) {
        i64 j = item % m, first = item / m * rows, last = first + rows < n ? first + rows : n;
        double sum = 0, c[HEIGHT];
        for (i64 i = first; i < last; i += HEIGHT) {
            make_costs(s, i, j, c);
#pragma unroll
            for (int a = 0; a < HEIGHT; ++a)
                if (i + a < last && factors[i + a] != 0)
                    sum += factors[i + a] * exponential(scale * (g[j] - c[a]) - tops[i + a]);
        }
        parts[item] = sum;
    }
}

RANDLA_KERNEL add_parts(i64 m, i64 count, const double *parts, double *sums) {
    RANDLA_EACH(j, m) {
        double sum = 0;
        for (i64 part = 0; part < count; ++part) sum += parts[part * m + j];
        sums[j] = sum;
    }
}

// Item (group of HEIGHT rows, j) of the rows first .. last - 1 of the plan.
RANDLA_KERNEL plan_tile(i64 items, i64 first, i64 last, i64 metric, i64 n, i64 m, i64 d, double reg, const T *C,
                        const double *X, const double *Y, const double *g, const double *tops, const double *factors,
                        double *plan) {
    struct costs s = {metric, n, m, d, C, X, Y};
    double scale = 1 / reg;
    RANDLA_EACH(item, items) {
        i64 j = item % m, i = first + item / m * HEIGHT;
        double c[HEIGHT];
        make_costs(s, i, j, c);
#pragma unroll
        for (int a = 0; a < HEIGHT; ++a)
            if (i + a < last) {
                double factor = factors[i + a];
                plan[(i + a - first) * m + j] =
                    factor == 0 ? 0 : factor * exponential(scale * (g[j] - c[a]) - tops[i + a]);
            }
    }
}

// --- sparse plans ----------------------------------------------------------------------------------------------------

// For each row the power of two, or `certain`, from which on entries are kept, and how many are.  The entry `largest` of
// a row is its factor; a thread sums its entries by their powers of two, and threads are added in their order.
RANDLA_KERNEL plan_thresholds(i64 rows, i64 m, double share, const double *plan, const double *totals,
                              const double *largest, double *least, i64 *counts) {
    RANDLA_SHARED(shared);
    i64 thread = threadIdx.x, threads = blockDim.x;
    double *masses = shared + thread, *sums = shared + BINS * threads;
    int *found = (int *)(sums + BINS);
    for (i64 i = blockIdx.x; i < rows; i += gridDim.x) {
        const double *row = plan + i * m;
        double total = totals[i], allowed = share * total, certain = allowed / m;
        certain = certain > LEAST_NORMAL ? certain : LEAST_NORMAL;
        int highest = ilogb(largest[i]);
        for (int b = 0; b < BINS; ++b) masses[b * threads] = 0;
        for (i64 j = thread; j < m; j += threads)
            if (row[j] >= certain) {
                int below = highest - ilogb(row[j]);  // the largest may be its factor up to rounding: -1
                masses[(below < 0 ? 0 : below < BINS - 1 ? below : BINS - 1) * threads] += row[j];
            }
        __syncthreads();
        for (i64 b = thread; b < BINS; b += threads) {
            double sum = 0;
            for (i64 t = 0; t < threads; ++t) sum += shared[b * threads + t];
            sums[b] = sum;
        }
        __syncthreads();
        double kept = 0;
        for (int b = 0; b < BINS; ++b) kept += sums[b];
        double spent = total > kept ? total - kept : 0, bound = certain;
        int b = BINS - 1;
        for (; b >= 0; --b) {
            spent += sums[b];
            if (spent > allowed) break;
        }
        if (0 <= b && b < BINS - 1) {  // the last bin has all that is lower, which is then kept
            double power = ldexp(1.0, highest - b);
            bound = power > certain ? power : certain;
        }
        int count = 0;
        for (i64 j = thread; j < m; j += threads) count += row[j] >= bound;
        found[thread] = count;
        __syncthreads();
        if (thread == 0) {
            i64 all = 0;
            for (i64 t = 0; t < threads; ++t) all += found[t];
            least[i] = bound;
            counts[i] = all;
        }
    }
}

// The entries from `least` on, in the order of their columns, from indptr[first + i] on in row i of the tile.
RANDLA_KERNEL plan_fill(i64 rows, i64 m, i64 first, const double *plan, const double *least, const i64 *indptr,
                        double *data, int *indices) {
    RANDLA_SHARED(shared);
    i64 thread = threadIdx.x, threads = blockDim.x;
    int *found = (int *)shared;
    for (i64 i = blockIdx.x; i < rows; i += gridDim.x) {
        const double *row = plan + i * m;
        i64 place = indptr[first + i] - indptr[first];
        for (i64 left = 0; left < m; left += threads * HEIGHT) {
            i64 j = left + thread * HEIGHT, stop = j + HEIGHT < m ? j + HEIGHT : m;
            int count = 0;
            for (i64 c = j; c < stop; ++c) count += row[c] >= least[i];
            found[thread] = count;
            __syncthreads();
            i64 mine = place;
            for (i64 t = 0; t < threads; ++t) {
                mine += t < thread ? found[t] : 0;
                place += found[t];
            }
            for (i64 c = j; c < stop; ++c)
                if (row[c] >= least[i]) {
                    data[mine] = row[c];
                    indices[mine++] = (int)c;
                }
            __syncthreads();  // the next columns write over the counts
        }
    }
}
