// Small systems of equations, which a thread block forms and eliminates in double precision; put in after `philox.h`.
//
// Symmetric and triangular matrices are packed by rows of their lower triangle.  A workspace, vectors first and the
// matrix after them, lies in shared memory as far as it fits: `near` doubles of it do.
#ifndef RANDLA_SYSTEMS_H
#define RANDLA_SYSTEMS_H

#define LANES 8                         // threads that share a row of V: they read 32 or 64 bytes of it at a time
#define SINGULAR 2.220446049250313e-16  // 2**-52: of a pivot, times the size of the system

RANDLA_FN i64 at(i64 i, i64 j) { return i * (i + 1) / 2 + j; }

RANDLA_FN double *matrix_place(double *shared, double *mine, i64 near, i64 vectors) {
    return near > vectors ? shared + vectors : near > 0 ? mine : mine + vectors;
}

// The entries first .. last - 1 of a row, whose design are the rows indices[p] of V; weights: null for ones.
struct design {
    i64 k, first, last;
    const T *V, *weights;
    const i64 *indices;
};

// Rows top .. top + rows - 1 of the design, padded with zeros to `width` entries, their weights and targets.
RANDLA_FN void gather(struct design d, const T *targets, i64 top, int rows, int width, double *tile, double *w,
                      double *t) {
    int lane = threadIdx.x % LANES;
    for (int r = threadIdx.x / LANES; r < rows; r += blockDim.x / LANES) {
        const T *v = d.V + d.indices[top + r] * d.k;
        for (int j = lane; j < width; j += LANES) tile[r * width + j] = j < d.k ? (double)v[j] : 0;
    }
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        w[r] = d.weights ? (double)d.weights[top + r] : 1;
        t[r] = targets ? (double)targets[top + r] : 0;
    }
}

// M += the sum of w_r a_r a_r.T over the rows of a tile, by squares of side * side entries; w: null for ones.
RANDLA_FN void add_squares(i64 k, int rows, int width, const double *tile, const double *w, double *M, const int side) {
    int count = width / side;
    for (int i = 0, j = threadIdx.x;; j += blockDim.x) {
        while (i < count && j > i) j -= ++i;
        if (i >= count) break;
        double sum[16], left[4], right[4];
#pragma unroll
        for (int s = 0; s < side * side; ++s) sum[s] = 0;
#pragma unroll 1
        for (int r = 0; r < rows; ++r) {
            const double *row = tile + (i64)r * width;
            double weight = w ? w[r] : 1;
#pragma unroll
            for (int s = 0; s < side; ++s) {
                left[s] = row[side * i + s];
                right[s] = weight * row[side * j + s];
            }
#pragma unroll
            for (int s = 0; s < side * side; ++s) sum[s] += left[s / side] * right[s % side];
        }
#pragma unroll
        for (int s = 0; s < side * side; ++s) {
            int row = side * i + s / side, column = side * j + s % side;
            if (row < k && column <= row) M[at(row, column)] += sum[s];
        }
    }
}

RANDLA_FN void add_gram(i64 k, int rows, int width, const double *tile, const double *w, double *M) {
    if (width <= 32) add_squares(k, rows, width, tile, w, M, 2);  // squares enough for all threads
    else add_squares(k, rows, width, tile, w, M, 4);
}

// M = base + ridge I; base: null for nothing.
RANDLA_FN void begin(i64 k, const double *base, double ridge, double *M) {
    for (i64 i = threadIdx.x / LANES; i < k; i += blockDim.x / LANES)
        for (i64 j = threadIdx.x % LANES; j <= i; j += LANES)
            M[at(i, j)] = (base ? base[i * k + j] : 0) + (i == j ? ridge : 0);
}

// M += the system of a row, b += the sum of targets_p v_p (targets: null for nothing), by tiles of `tall` rows.
RANDLA_FN void form(struct design d, const T *targets, int tall, int width, double *tile, double *M, double *b) {
    double *w = tile + tall * width, *t = w + tall;
    for (i64 top = d.first; top < d.last; top += tall) {
        int rows = (int)(d.last - top < tall ? d.last - top : tall);
        gather(d, targets, top, rows, width, tile, w, t);
        __syncthreads();
        add_gram(d.k, rows, width, tile, w, M);
        for (i64 j = threadIdx.x; targets && j < d.k; j += blockDim.x) {
            double sum = 0;
            for (int r = 0; r < rows; ++r) sum += t[r] * tile[r * width + j];
            b[j] += sum;
        }
        __syncthreads();
    }
}

RANDLA_FN void keep_diagonal(i64 k, const double *M, double *diagonal) {
    for (i64 j = threadIdx.x; j < k; j += blockDim.x) diagonal[j] = M[at(j, j)];
    __syncthreads();
}

// M = L D L.T in place, with D on the diagonal and L D under it, and b <- L^-1 b.
// Returns the least pivot relative to its diagonal entry, 0 where one says that the system is singular.
RANDLA_FN double eliminate(i64 k, double *M, const double *diagonal, double *b) {
    double least = 1;
    for (i64 j = 0; j < k; ++j) {
        double pivot = M[at(j, j)], relative = pivot / diagonal[j];
        if (!(diagonal[j] > 0 && relative > k * SINGULAR)) return 0;
        if (relative < least) least = relative;
        for (i64 i = j + 1 + threadIdx.x / LANES; i < k; i += blockDim.x / LANES) {
            double factor = M[at(i, j)] / pivot;
            for (i64 c = j + 1 + threadIdx.x % LANES; c <= i; c += LANES) M[at(i, c)] -= factor * M[at(c, j)];
            if (threadIdx.x % LANES == 0) b[i] -= factor * b[j];
        }
        __syncthreads();  // the only one of a column: every thread reads the pivot for itself
    }
    return least;
}

// x solves U x = b, where the entry (c, j) of U, c <= j, is M[at(j, c)]; b is used up.
template <class Real> RANDLA_FN void substitute(i64 k, const double *M, double *b, Real *x) {
    for (i64 j = k - 1; j >= 0; --j) {
        double value = b[j] / M[at(j, j)];
        for (i64 c = threadIdx.x; c < j; c += blockDim.x) b[c] -= M[at(j, c)] * value;
        if (threadIdx.x == 0) x[j] = (Real)value;
        __syncthreads();
    }
}

#endif
