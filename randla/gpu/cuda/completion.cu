// Small least-squares problems of rows observed in part: a thread block to a row, in double precision.
//
// A block takes the entries of its row by tiles, so that a row may be of any length.  Its workspace, vectors first and
// matrix after them, lies in shared memory as far as it fits and beyond that in `scratch`, a piece for each block:
// `near` doubles of it are shared, `far` are not.  Symmetric and triangular matrices are packed by rows of their lower
// triangle.  Every sum belongs to one thread or is folded in a fixed order: no atomics, so a result does not change
// from run to run.
#include "philox.h"
#include "systems.h"

#define ROWS 64        // entries of a tile of products
#define FOLDS 32       // parts of an inner product
#define MOST_TEAM 256  // threads of a block

// The sum of a_j b_j.  A barrier lies between the writing of the vectors and this, and between any two of these.
RANDLA_FN double inner(i64 k, const double *a, const double *b, double *folds) {
    for (int lane = threadIdx.x; lane < FOLDS; lane += blockDim.x) {
        double sum = 0;
        for (i64 j = lane; j < k; j += FOLDS) sum += a[j] * b[j];
        folds[lane] = sum;
    }
    __syncthreads();
    double sum = 0;
    for (int lane = 0; lane < FOLDS; ++lane) sum += folds[lane];
    return sum;
}

RANDLA_FN bool is_zero(const double *numbers, i64 size) {
    for (i64 q = 0; q < size; ++q)
        if (numbers[q] != 0) return false;
    return true;
}

// --- direct solutions ------------------------------------------------------------------------------------------------

RANDLA_KERNEL masked_cholesky(i64 blocks, i64 m, i64 k, i64 tall, i64 width, i64 near, i64 far, i64 weighted, i64 based,
                              const i64 *order, const T *V, const i64 *indices, const i64 *indptr, const T *weights,
                              const T *targets, const double *base, const double *ridge, double *scratch, T *X,
                              double *pivots) {
    RANDLA_SHARED(shared);
    double *mine = scratch + blockIdx.x * far, *b = near ? shared : mine, *diagonal = b + k, *tile = diagonal + k;
    double *M = matrix_place(shared, mine, near, 2 * k + tall * (width + 2));
    for (i64 place = blockIdx.x; place < m; place += gridDim.x) {
        i64 i = order[place];
        struct design d = {k, indptr[i], indptr[i + 1], V, weighted ? weights : 0, indices};
        if (d.first == d.last && !based) continue;
        begin(k, based ? base : 0, ridge[i], M);
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) b[j] = 0;
        __syncthreads();
        form(d, targets, (int)tall, (int)width, tile, M, b);
        keep_diagonal(k, M, diagonal);
        double least = eliminate(k, M, diagonal, b);
        // A system that is not zero may have zeros on its diagonal, where weights or base are negative.
        bool solvable = least > 0, nothing = !solvable && diagonal[0] == 0 && is_zero(M, at(k, 0));
        if (threadIdx.x == 0) pivots[i] = nothing ? 1 : least;
        if (solvable) substitute(k, M, b, X + i * k);
        __syncthreads();
    }
}

// b <- L^-1 b, for what `eliminate` leaves in M.
RANDLA_FN void descend(i64 k, const double *M, double *b) {
    for (i64 j = 0; j < k; ++j) {
        double value = b[j] / M[at(j, j)];
        for (i64 i = j + 1 + threadIdx.x; i < k; i += blockDim.x) b[i] -= M[at(i, j)] * value;
        __syncthreads();
    }
}

// Group g: the queries members[e] of one row, e from starts[g] up to the next start; its system is factored once.
RANDLA_KERNEL masked_variances(i64 blocks, i64 groups, i64 count, i64 k, i64 tall, i64 width, i64 near, i64 far,
                               i64 weighted, i64 based, const i64 *order, const i64 *starts, const i64 *members,
                               const T *V, const i64 *indices, const i64 *indptr, const T *weights, const double *base,
                               const double *ridge, const i64 *rows, const double *U, double *scratch, double *out) {
    RANDLA_SHARED(shared);
    double *mine = scratch + blockIdx.x * far, *b = near ? shared : mine, *diagonal = b + k, *folds = diagonal + k;
    double *tile = folds + FOLDS, *M = matrix_place(shared, mine, near, 2 * k + FOLDS + tall * (width + 2));
    for (i64 place = blockIdx.x; place < groups; place += gridDim.x) {
        i64 g = order[place], end = g + 1 < groups ? starts[g + 1] : count, i = rows[members[starts[g]]];
        struct design d = {k, indptr[i], indptr[i + 1], V, weighted ? weights : 0, indices};
        begin(k, based ? base : 0, ridge[i], M);
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) b[j] = 0;
        __syncthreads();
        form(d, 0, (int)tall, (int)width, tile, M, b);
        keep_diagonal(k, M, diagonal);
        double least = eliminate(k, M, diagonal, b);
        for (i64 e = starts[g]; e < end; ++e) {
            const double *u = U + members[e] * k;
            if (is_zero(u, k)) continue;
            for (i64 j = threadIdx.x; j < k; j += blockDim.x) b[j] = u[j];
            __syncthreads();
            if (least > 0) descend(k, M, b);
            for (i64 j = threadIdx.x; j < k; j += blockDim.x) diagonal[j] = b[j] / M[at(j, j)];
            __syncthreads();
            double variance = inner(k, b, diagonal, folds);
            if (threadIdx.x == 0) out[members[e]] = least > 0 ? variance : 1.0 / 0.0;
        }
        __syncthreads();
    }
}

// The triangular factor R of the rows seen so far, R[j, c] at at(c, j), and z, its right-hand side, take up a tile of
// rows by Householder reflections of a row of R with all rows of the tile; column k of the tile is its right-hand side.
RANDLA_FN void reflect(i64 k, int rows, double *tile, double *R, double *z) {
    i64 width = k + 1;
    for (i64 j = 0; j < k; ++j) {
        double head = R[at(j, j)], below = 0;
        for (int r = 0; r < rows; ++r) below += tile[r * width + j] * tile[r * width + j];
        double norm = sqrt(head * head + below), first = head < 0 ? head - norm : head + norm;
        double factor = 2 / (first * first + below);
        for (i64 c = j + 1 + threadIdx.x; norm != 0 && c <= k; c += blockDim.x) {
            double *top = c < k ? R + at(c, j) : z + j, sum = first * *top;
            for (int r = 0; r < rows; ++r) sum += tile[r * width + j] * tile[r * width + c];
            sum *= factor;
            *top -= sum * first;
            for (int r = 0; r < rows; ++r) tile[r * width + c] -= sum * tile[r * width + j];
        }
        __syncthreads();
        if (threadIdx.x == 0) R[at(j, j)] = head < 0 ? norm : -norm;
    }
    __syncthreads();
}

RANDLA_KERNEL masked_qr(i64 blocks, i64 m, i64 k, i64 tall, i64 near, i64 far, i64 weighted, double limit,
                        const i64 *order, const T *V, const i64 *indices, const i64 *indptr, const T *weights,
                        const T *values, const double *ridge, double *scratch, T *X, double *pivots) {
    RANDLA_SHARED(shared);
    double *mine = scratch + blockIdx.x * far, *z = near ? shared : mine, *relative = z + k, *tile = relative + k;
    double *R = matrix_place(shared, mine, near, 2 * k + tall * (k + 1));
    int lane = threadIdx.x % LANES;
    for (i64 place = blockIdx.x; place < m; place += gridDim.x) {
        i64 i = order[place];
        if (indptr[i] == indptr[i + 1]) continue;
        begin(k, 0, sqrt(ridge[i]), R);
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) z[j] = 0;
        for (i64 top = indptr[i]; top < indptr[i + 1]; top += tall) {
            int rows = (int)(indptr[i + 1] - top < tall ? indptr[i + 1] - top : tall);
            for (int r = threadIdx.x / LANES; r < rows; r += blockDim.x / LANES) {
                const T *v = V + indices[top + r] * k;
                double root = weighted ? sqrt((double)weights[top + r]) : 1;
                for (i64 j = lane; j <= k; j += LANES)
                    tile[r * (k + 1) + j] = root * (double)(j < k ? v[j] : values[top + r]);
            }
            __syncthreads();
            reflect(k, rows, tile, R, z);
        }
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) {
            double square = 0;  // reflections keep the norms of columns
            for (i64 c = 0; c <= j; ++c) square += R[at(j, c)] * R[at(j, c)];
            relative[j] = square == 0 ? 0 : (R[at(j, j)] < 0 ? -R[at(j, j)] : R[at(j, j)]) / sqrt(square);
        }
        __syncthreads();
        double least = 1;
        bool solvable = true;
        for (i64 j = 0; j < k; ++j) {
            solvable = solvable && relative[j] > limit;
            if (relative[j] < least) least = relative[j];
        }
        bool nothing = !solvable && is_zero(R, at(k, 0));
        if (threadIdx.x == 0) pivots[i] = nothing ? 1 : solvable ? least : 0;
        if (solvable) substitute(k, R, z, X + i * k);
        __syncthreads();
    }
}

// --- conjugate gradients ---------------------------------------------------------------------------------------------

// What the iterations of a row need: the system without its matrix, the preconditioner, and vectors of k entries.
struct iteration {
    struct design d;
    i64 groups;                                // sums of one column that run side by side
    const double *base, *P, *W;                // P: diagonal of the preconditioner, or of D where it is (W.T D^-1 W)^-1
    double ridge, *x, *r, *z, *p, *q, *y;      // y is used with W only
    double *sums, *parts, *factors, *folds;    // (groups, k), (ROWS, LANES + 1), ROWS and FOLDS entries
};

// Lays out all but P and W from `from` on: ROWS * (LANES + 2) + FOLDS entries, after (6 + groups) k ones.
RANDLA_FN struct iteration arrange(struct design d, const double *base, double ridge, i64 groups, double *from) {
    i64 k = d.k;
    double *sums = from + 6 * k, *parts = sums + groups * k, *factors = parts + ROWS * (LANES + 1);
    struct iteration s = {d, groups, base, 0, 0, ridge, from, from + k, from + 2 * k, from + 3 * k, from + 4 * k,
                          from + 5 * k, sums, parts, factors, factors + ROWS};
    return s;
}

// out = the sum of given_p v_p, or where that is null the system times `in`.
RANDLA_FN void multiply(struct iteration s, const T *given, const double *in, double *out) {
    int k = (int)s.d.k, groups = (int)s.groups, items = groups * k;  // division of 64-bit numbers is slow
    int lane = threadIdx.x % LANES;
    for (int e = threadIdx.x; e < items; e += blockDim.x) s.sums[e] = 0;
    for (i64 top = s.d.first; top < s.d.last; top += ROWS) {
        int rows = (int)(s.d.last - top < ROWS ? s.d.last - top : ROWS);
        for (int r = threadIdx.x / LANES; !given && r < rows; r += blockDim.x / LANES) {
            const T *v = s.d.V + s.d.indices[top + r] * k;
            double sum = 0;
            for (int j = lane; j < k; j += LANES) sum += (double)v[j] * in[j];
            s.parts[r * (LANES + 1) + lane] = sum;
        }
        __syncthreads();
        for (int r = threadIdx.x; r < rows; r += blockDim.x) {
            double sum = 0;
            for (int l = 0; l < LANES && !given; ++l) sum += s.parts[r * (LANES + 1) + l];
            s.factors[r] = given ? (double)given[top + r] : s.d.weights ? (double)s.d.weights[top + r] * sum : sum;
        }
        __syncthreads();
        for (int e = threadIdx.x; e < items; e += blockDim.x) {
            double sum = 0;
            for (int r = e / k; r < rows; r += groups)
                sum += s.factors[r] * (double)s.d.V[s.d.indices[top + r] * k + e % k];
            s.sums[e] += sum;
        }
    }
    __syncthreads();
    for (int j = threadIdx.x; j < k; j += blockDim.x) {
        double sum = given ? 0 : s.ridge * in[j];
        for (int c = 0; c < k && s.base && !given; ++c) sum += s.base[(i64)c * k + j] * in[c];
        for (int g = 0; g < groups; ++g) sum += s.sums[g * k + j];
        out[j] = sum;
    }
    __syncthreads();
}

// z = P^-1 r; returns r.z.  W has a diagonal of ones, which is not stored.
RANDLA_FN double precondition(struct iteration s, const double *r) {
    i64 k = s.d.k;
    if (!s.W) {
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) s.z[j] = r[j] / s.P[j];
        __syncthreads();
        return inner(k, r, s.z, s.folds);
    }
    for (i64 i = threadIdx.x; i < k; i += blockDim.x) {
        double sum = r[i];
        for (i64 c = 0; c < i; ++c) sum += s.W[at(i, c)] * r[c];
        s.y[i] = sum / s.P[i];
    }
    __syncthreads();
    for (i64 c = threadIdx.x; c < k; c += blockDim.x) {
        double sum = s.y[c];
        for (i64 i = c + 1; i < k; ++i) sum += s.W[at(i, c)] * s.y[i];
        s.z[c] = sum;
    }
    __syncthreads();
    return inner(k, r, s.z, s.folds);
}

// See the reference; x holds the start and is written to X, of one row.  Stage 0 forms the right-hand side, stage 1 the
// residual of the start, and from stage 2 on each is a step, so that both long functions stand here once.
RANDLA_FN void conjugate_gradients(struct iteration s, const T *targets, double tol, i64 max_iter, T *X, i64 *steps,
                                   double *residual) {
    i64 k = s.d.k, done = 0;
    double target = 0, energy = 0;
    for (i64 stage = 0;; ++stage) {
        multiply(s, stage == 0 ? targets : 0, stage < 2 ? s.x : s.p, s.q);
        double before = energy, length = 1;
        if (stage > 1) {
            double curvature = inner(k, s.p, s.q, s.folds);
            if (!(curvature > 0)) break;
            length = energy / curvature;
        }
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) {
            if (stage > 1) s.x[j] += length * s.p[j];
            s.r[j] = stage == 0 ? s.q[j] : s.r[j] - length * s.q[j];
        }
        __syncthreads();
        energy = precondition(s, s.r);
        if (stage == 0) {
            target = energy;
            if (!(target > 0)) {
                if (threadIdx.x == 0 && !(target == 0)) *residual = target - target;  // not a number: not solved
                return;
            }
            continue;
        }
        for (i64 j = threadIdx.x; j < k; j += blockDim.x)
            s.p[j] = stage == 1 ? s.z[j] : s.z[j] + energy / before * s.p[j];
        __syncthreads();
        done = stage - 1;
        if (done >= max_iter || !(energy > tol * tol * target)) break;
    }
    for (i64 j = threadIdx.x; j < k; j += blockDim.x) X[j] = (T)s.x[j];
    if (threadIdx.x == 0) {
        *steps = done;
        *residual = sqrt(energy < 0 ? 0 : energy / target);
    }
}

RANDLA_KERNEL masked_cg(i64 blocks, i64 m, i64 k, i64 groups, i64 near, i64 far, i64 weighted, i64 based, double tol,
                        i64 max_iter, const i64 *order, const T *V, const i64 *indices, const i64 *indptr,
                        const T *weights, const T *targets, const double *base, const double *ridge,
                        const double *diagonal, const double *scale, const T *X0, double *scratch, T *X, i64 *steps,
                        double *residuals) {
    RANDLA_SHARED(shared);
    double *P = near ? shared : scratch + blockIdx.x * far;
    for (i64 place = blockIdx.x; place < m; place += gridDim.x) {
        i64 i = order[place];
        struct design d = {k, indptr[i], indptr[i + 1], V, weighted ? weights : 0, indices};
        if (d.first == d.last) continue;
        struct iteration s = arrange(d, based ? base : 0, ridge[i], groups, P + k);
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) {
            double entry = scale[i] * diagonal[j] + ridge[i];
            P[j] = entry > 0 ? entry : 1;
            s.x[j] = (double)X0[i * k + j];
        }
        s.P = P;
        conjugate_gradients(s, targets, tol, max_iter, X + i * k, steps + i, residuals + i);
    }
}

// SA (sketch_size, width) = S diag(sqrt(w)) V_S, S scaled by 1 / sqrt(nnz); a thread owns a column of a band of S.
RANDLA_FN void sketch_design(struct iteration s, u32 k0, u32 k1, u32 stream, i64 sketch_size, i64 nnz, i64 width,
                             double *SA, int *packed) {
    int k = (int)s.d.k;
    i64 owned = 1;
    double unit = 1 / sqrt((double)nnz);
    while (owned < nnz) owned *= 2;
    for (i64 e = threadIdx.x; e < sketch_size * width; e += blockDim.x) SA[e] = 0;
    for (i64 top = s.d.first; top < s.d.last; top += ROWS) {
        int rows = (int)(s.d.last - top < ROWS ? s.d.last - top : ROWS);
        for (int r = threadIdx.x; r < rows; r += blockDim.x) {
            sparse_sign_column((u64)s.d.indices[top + r], k0, k1, stream, nnz, owned, sketch_size, packed + r * nnz);
            s.factors[r] = s.d.weights ? sqrt((double)s.d.weights[top + r]) * unit : unit;
        }
        __syncthreads();
        for (int e = threadIdx.x; e < (int)nnz * k; e += blockDim.x) {
            int band = e / k, j = e % k;
            for (int r = 0; r < rows; ++r) {
                int word = packed[r * nnz + band];
                double value = s.factors[r] * (double)s.d.V[s.d.indices[top + r] * k + j];
                SA[(word >> 1) * width + j] += word & 1 ? -value : value;
            }
        }
        __syncthreads();
    }
}

// M = L D L.T becomes L^-1 in place, without its diagonal of ones; D is told apart.  A pivot is at least `raise`, as it
// is without rounding where the eigenvalues of M are.
RANDLA_FN void invert_factor(i64 k, double raise, double *M, double *D, double *column) {
    for (i64 j = 0; j < k; ++j) {
        for (i64 i = j + threadIdx.x; i < k; i += blockDim.x) column[i] = M[at(i, j)];
        __syncthreads();
        double pivot = column[j] < raise ? raise : column[j];
        if (threadIdx.x == 0) D[j] = pivot;
        for (i64 i = j + 1 + threadIdx.x / LANES; i < k; i += blockDim.x / LANES) {
            double factor = column[i] / pivot;
            for (i64 c = threadIdx.x % LANES; c <= i; c += LANES)
                if (c == j) M[at(i, c)] = -factor;
                else M[at(i, c)] -= factor * (c < j ? M[at(j, c)] : column[c]);
        }
        __syncthreads();
    }
}

RANDLA_KERNEL masked_sketched_cg(i64 blocks, u32 k0, u32 k1, u32 stream, i64 m, i64 k, i64 groups, i64 near, i64 far,
                                 i64 weighted, i64 sketch_size, i64 nnz, i64 width, double tol, i64 max_iter,
                                 const i64 *order, const T *V, const i64 *indices, const i64 *indptr, const T *weights,
                                 const T *targets, const double *ridge, const T *X0, double *scratch, T *X, i64 *steps,
                                 double *residuals) {
    RANDLA_SHARED(shared);
    i64 vectors = (7 + groups) * k + ROWS * (LANES + 2) + FOLDS + (ROWS * nnz + 1) / 2;
    double *mine = scratch + blockIdx.x * far, *P = near ? shared : mine;
    double *M = matrix_place(shared, mine, near, vectors), *SA = M + at(k, 0);
    for (i64 place = blockIdx.x; place < m; place += gridDim.x) {
        i64 i = order[place];
        struct design d = {k, indptr[i], indptr[i + 1], V, weighted ? weights : 0, indices};
        if (d.first == d.last) continue;
        struct iteration s = arrange(d, 0, ridge[i], groups, P + k);
        sketch_design(s, k0, k1, stream, sketch_size, nnz, width, SA, (int *)(s.folds + FOLDS));
        begin(k, 0, ridge[i], M);
        __syncthreads();
        add_gram(k, (int)sketch_size, (int)width, SA, 0, M);
        __syncthreads();
        double trace = 0;
#pragma unroll 1
        for (i64 j = 0; j < k; ++j) trace += M[at(j, j)];
        __syncthreads();
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) {
            M[at(j, j)] += k * SINGULAR * trace;
            P[j] = 1;
            s.x[j] = (double)X0[i * k + j];
        }
        if (trace != 0) invert_factor(k, k * SINGULAR * trace, M, P, s.y);
        s.P = P;
        s.W = trace != 0 ? M : 0;
        conjugate_gradients(s, targets, tol, max_iter, X + i * k, steps + i, residuals + i);
    }
}

// --- predictions -----------------------------------------------------------------------------------------------------

// Entry p of a CSR matrix belongs to the last row that begins at or before it.
RANDLA_FN i64 row_of(i64 p, i64 m, const i64 *indptr) {
    i64 lo = 0, hi = m;
    while (lo < hi) {
        i64 middle = (lo + hi) / 2;
        if (indptr[middle] <= p) lo = middle + 1;
        else hi = middle;
    }
    return lo - 1;
}

// Tiles of ROWS entries, whatever rows they belong to.
RANDLA_KERNEL sampled_products(i64 tiles, i64 count, i64 m, i64 k, const T *X, const T *Y, const i64 *indices,
                               const i64 *indptr, T *out) {
    __shared__ double parts[ROWS * (LANES + 1)];
    __shared__ i64 owner[ROWS];
    int lane = threadIdx.x % LANES;
    for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        i64 first = tile * ROWS;
        int rows = (int)(count - first < ROWS ? count - first : ROWS);
        for (int r = threadIdx.x; r < rows; r += blockDim.x) owner[r] = row_of(first + r, m, indptr);
        __syncthreads();
        for (int r = threadIdx.x / LANES; r < rows; r += blockDim.x / LANES) {
            const T *x = X + owner[r] * k, *y = Y + indices[first + r] * k;
            double sum = 0;
            for (i64 j = lane; j < k; j += LANES) sum += (double)x[j] * (double)y[j];
            parts[r * (LANES + 1) + lane] = sum;
        }
        __syncthreads();
        for (int r = threadIdx.x; r < rows; r += blockDim.x) {
            double sum = 0;
            for (int l = 0; l < LANES; ++l) sum += parts[r * (LANES + 1) + l];
            out[first + r] = (T)sum;
        }
    }
}

// The best entry of a thread's columns, of those that come after (value, column): by value, then by column.
RANDLA_FN void next_best(i64 n, const T *row, T value, i64 column, T *best, i64 *where) {
    T highest = -1.0 / 0.0;
    i64 found = -1;
    for (i64 c = threadIdx.x; c < n; c += blockDim.x)
        if ((row[c] < value || (row[c] == value && c > column)) && row[c] > highest) {
            highest = row[c];
            found = c;
        }
    best[threadIdx.x] = highest;
    where[threadIdx.x] = found;
}

RANDLA_FN bool comes_first(T value, i64 column, T other, i64 other_column) {
    return value > other || (value == other && column >= 0 && column < other_column);
}

// Each thread holds the best of its columns, and gives up one after the other; NaN, as which the columns that a row has
// already are marked in `scores`, never is the best.
RANDLA_KERNEL top_columns(i64 blocks, i64 b, i64 n, i64 k, const i64 *indices, const i64 *indptr, T *scores,
                          i64 *columns, T *values) {
    __shared__ T best[MOST_TEAM], lane_best[FOLDS];
    __shared__ i64 where[MOST_TEAM], lane_where[FOLDS];
    int thread = threadIdx.x, threads = blockDim.x;
    for (i64 i = blockIdx.x; i < b; i += gridDim.x) {
        T *row = scores + i * n;
        for (i64 p = indptr[i] + thread; p < indptr[i + 1]; p += threads) row[indices[p]] = (T)(0.0 / 0.0);
        __syncthreads();
        next_best(n, row, (T)(1.0 / 0.0), -1, best, where);
        for (i64 place = 0; place < k; ++place) {
            __syncthreads();
            for (int lane = thread; lane < FOLDS; lane += threads) {
                T value = -1.0 / 0.0;
                i64 column = -1;
                for (int t = lane; t < threads; t += FOLDS)
                    if (comes_first(best[t], where[t], value, column)) {
                        value = best[t];
                        column = where[t];
                    }
                lane_best[lane] = value;
                lane_where[lane] = column;
            }
            __syncthreads();
            T value = -1.0 / 0.0;
            i64 column = -1;
            for (int lane = 0; lane < FOLDS; ++lane)
                if (comes_first(lane_best[lane], lane_where[lane], value, column)) {
                    value = lane_best[lane];
                    column = lane_where[lane];
                }
            if (column < 0) break;
            if (thread == 0) {
                columns[i * k + place] = column;
                values[i * k + place] = value;
            }
            if (column % threads == thread) next_best(n, row, value, column, best, where);
        }
    }
}
