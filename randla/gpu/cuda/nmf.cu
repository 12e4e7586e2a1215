// Nonnegative least squares and divergences by coordinates, in double precision.
//
// A thread takes a column of a factor, or a thread block takes a column or a row.  Every sum belongs to one thread or
// is folded in a fixed order: no atomics, so a result does not change from run to run.  What does not fit into shared
// memory lies in `scratch`, a piece for each block: `near` doubles are shared, `far` are not.
#include "philox.h"
#include "systems.h"

#define TILE 16        // columns that stop together
#define HEIGHT 4       // coordinates whose sums are formed side by side
#define RAISE 1e-10    // of the mean diagonal entry: what is added to the diagonal of a singular system at first
#define PARTS 128      // parts of a sum over the entries of a row
#define FOLDS 16       // sums of parts
#define SHORT 1024     // entries of a row whose model lies in the workspace of a block
#define CALM 0.683802  // Newton decrement below which a full step cannot raise a self-concordant function

// --- sweeps over columns ---------------------------------------------------------------------------------------------

// One sweep over the r coordinates of a thread's column x, whose entries lie `stride` apart; the squared change.
// G has K rows of K entries, x has K entries, all of them 0 from r on.  Coordinates are taken HEIGHT at a time, so that
// an entry of x is read once for all of them, and correct each other as they change.
RANDLA_FN double sweep_column(int r, int K, int stride, i64 n, const double *G, const T *b, double *x) {
    double change = 0;
    for (int i = 0; i < r; i += HEIGHT) {
        double sum[HEIGHT];
#pragma unroll
        for (int a = 0; a < HEIGHT; ++a) sum[a] = 0;
        for (int j = 0; j < K; ++j) {
            double value = x[j * stride];
#pragma unroll
            for (int a = 0; a < HEIGHT; ++a) sum[a] += G[j * K + i + a] * value;
        }
#pragma unroll
        for (int a = 0; a < HEIGHT; ++a) {
            int k = i + a;
            double pivot = G[k * K + k];
            if (!(pivot > 0)) continue;  // a part that is zero stays as it is
            double old = x[k * stride], value = old + ((double)b[k * n] - sum[a]) / pivot;
            value = value > 0 ? value : 0;
            x[k * stride] = value;
            change += (value - old) * (value - old);
#pragma unroll
            for (int c = 0; c < HEIGHT; ++c)
                if (c > a) sum[c] += G[k * K + i + c] * (value - old);
        }
    }
    return change;
}

// `inside`: G has room in shared memory, after the columns.
RANDLA_KERNEL nonneg_sweeps(i64 blocks, i64 r, i64 n, i64 K, i64 n_sweeps, i64 near, i64 far, i64 inside, double tol,
                            const double *G, const T *B, double *scratch, T *X) {
    RANDLA_SHARED(shared);
    int thread = threadIdx.x, threads = blockDim.x;
    double *squares = near ? shared : scratch + blockIdx.x * far, *x = squares + threads + thread;
    for (i64 e = thread; inside && e < K * K; e += threads) shared[near + e] = G[e];
    __syncthreads();
    for (i64 top = (i64)blockIdx.x * threads; top < n; top += (i64)gridDim.x * threads) {
        i64 c = top + thread;
        for (i64 k = 0; k < K; ++k) x[k * threads] = c < n && k < r ? (double)X[k * n + c] : 0;
        double start = 0;
        bool going = true;  // the same for all columns of a tile
        for (i64 sweep = 0; sweep < n_sweeps; ++sweep) {
            bool moves = going && c < n;
            const double *system = inside ? shared + near : G;
            squares[thread] = moves ? sweep_column((int)r, (int)K, threads, n, system, B + c, x) : 0;
            __syncthreads();
            double change = 0, all = 0;
            for (int s = thread - thread % TILE; s < thread - thread % TILE + TILE; ++s) change += squares[s];
            for (int s = 0; s < threads; ++s) all += squares[s];
            __syncthreads();
            if (sweep == 0) start = change;
            going = going && change > tol * tol * start;
            if (all == 0) break;  // no tile of the block is going
        }
        for (i64 k = 0; k < r && c < n; ++k) X[k * n + c] = (T)x[k * threads];
    }
}

// --- exact solutions by pivoting -------------------------------------------------------------------------------------

// x on the `size` passive places solves G[p, p] x = right[p], with a raised diagonal where that is singular.
RANDLA_FN void solve_passive(i64 r, i64 size, const double *G, double trace, const int *passive, const double *right,
                             double *M, double *diagonal, double *b, double *x) {
    double ridge = 0;
    for (;;) {
        for (i64 i = threadIdx.x / LANES; i < size; i += blockDim.x / LANES)
            for (i64 j = threadIdx.x % LANES; j <= i; j += LANES)
                M[at(i, j)] = G[passive[i] * r + passive[j]] + (i == j ? ridge : 0);
        for (i64 i = threadIdx.x; i < size; i += blockDim.x) b[i] = right[passive[i]];
        __syncthreads();
        keep_diagonal(size, M, diagonal);
        if (eliminate(size, M, diagonal, b) > 0 || !(trace > 0 && ridge < 1.0 / 0.0)) break;
        ridge = ridge == 0 ? RAISE * trace / r : 10 * ridge;
        __syncthreads();
    }
    substitute(size, M, b, x);
}

// Block principal pivoting of Kim and Park: exchange all infeasible places, only the last where that cycles.
RANDLA_KERNEL nonneg_pivots(i64 blocks, i64 r, i64 n, i64 near, i64 far, i64 max_iter, double tol, const double *G,
                            const T *B, double *scratch, T *X, i64 *found) {
    RANDLA_SHARED(shared);
    i64 thread = threadIdx.x, threads = blockDim.x;
    double *mine = scratch + blockIdx.x * far, *right = near ? shared : mine, *b = right + r, *diagonal = b + r;
    double *x = diagonal + r, *kept = x + r, *M = matrix_place(shared, mine, near, 7 * r), trace = 0;
    int *inside = (int *)(kept + r), *place = inside + r, *passive = place + r, *wrong = passive + r;
    for (i64 k = 0; k < r; ++k) trace += G[k * r + k];
    for (i64 column = blockIdx.x; column < n; column += gridDim.x) {
        for (i64 k = thread; k < r; k += threads) {
            right[k] = (double)B[k * n + column];
            inside[k] = X[k * n + column] > 0 && G[k * r + k] > 0;
            kept[k] = 0;
        }
        __syncthreads();
        i64 tries = 3, fewest = r + 1;
        bool solved = false;
        for (i64 step = 0; step < max_iter && !solved; ++step) {
            i64 size = 0, n_wrong = 0, last = -1;
            double floor = 0;
            for (i64 k = 0; k < r; ++k) {
                double largest = right[k] < 0 ? -right[k] : right[k];
                if (largest > floor) floor = largest;
                if (k % threads == thread) place[k] = (int)size;
                if (k % threads == thread && inside[k]) passive[size] = (int)k;
                size += inside[k];
            }
            __syncthreads();
            solve_passive(r, size, G, trace, passive, right, M, diagonal, b, x);
            for (i64 k = thread; k < r; k += threads) {
                double slope = -right[k], value = inside[k] ? x[place[k]] : 0;
                for (i64 t = 0; t < size; ++t) slope += G[passive[t] * r + k] * x[t];
                wrong[k] = inside[k] ? value < 0 : slope < -tol * floor && G[k * r + k] > 0;
                kept[k] = value < 0 ? 0 : value;
            }
            __syncthreads();
            for (i64 k = 0; k < r; ++k)
                if (wrong[k]) {
                    ++n_wrong;
                    last = k;
                }
            bool fewer = n_wrong < fewest, every = fewer || tries > 0;
            solved = n_wrong == 0;
            tries = fewer ? 3 : tries - 1;
            fewest = fewer ? n_wrong : fewest;
            for (i64 k = thread; k < r; k += threads)
                if (wrong[k] && (every || k == last)) inside[k] = !inside[k];
            __syncthreads();
        }
        for (i64 k = thread; k < r; k += threads) X[k * n + column] = (T)kept[k];
        if (thread == 0) found[column] = solved ? 1 : -1;
    }
}

// --- entries that are missing ----------------------------------------------------------------------------------------

RANDLA_FN double entry(const double *M, i64 i, i64 j) { return M[j <= i ? at(i, j) : at(j, i)]; }

// Sweeps over x >= 0 with y = M x - b beside it; threads own entries of y, and all of them see each step.
RANDLA_FN void sweep_row(i64 k, i64 n_sweeps, double tol, const double *M, double *y, double *x) {
    double start = 0;
    for (i64 sweep = 0; sweep < n_sweeps; ++sweep) {
        double change = 0;
        for (i64 c = 0; c < k; ++c) {
            double pivot = M[at(c, c)], old = x[c], value = old - y[c] / pivot;
            value = value > 0 ? value : 0;
            if (!(pivot > 0) || value == old) continue;
            change += (value - old) * (value - old);
            __syncthreads();
            for (i64 j = threadIdx.x; j < k; j += blockDim.x) y[j] += (value - old) * entry(M, c, j);
            if (threadIdx.x == 0) x[c] = value;
            __syncthreads();
        }
        if (sweep == 0) start = change;
        if (!(change > tol * tol * start)) break;
    }
}

RANDLA_KERNEL masked_nonneg_sweeps(i64 blocks, i64 m, i64 k, i64 tall, i64 width, i64 near, i64 far, i64 weighted,
                                   i64 based, i64 n_sweeps, double tol, const i64 *order, const T *V,
                                   const i64 *indices, const i64 *indptr, const T *weights, const T *targets,
                                   const double *base, const double *ridge, double *scratch, T *X) {
    RANDLA_SHARED(shared);
    double *mine = scratch + blockIdx.x * far, *b = near ? shared : mine, *x = b + k, *tile = x + k;
    double *M = matrix_place(shared, mine, near, 2 * k + tall * (width + 2));
    for (i64 place = blockIdx.x; place < m; place += gridDim.x) {
        i64 i = order[place];
        struct design d = {k, indptr[i], indptr[i + 1], V, weighted ? weights : 0, indices};
        if (d.first == d.last && !based) continue;
        begin(k, based ? base : 0, ridge[i], M);
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) {
            b[j] = 0;
            x[j] = (double)X[i * k + j];
        }
        __syncthreads();
        form(d, targets, (int)tall, (int)width, tile, M, b);
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) {
            double sum = -b[j];
            for (i64 c = 0; c < k; ++c) sum += entry(M, j, c) * x[c];
            b[j] = sum;
        }
        __syncthreads();
        sweep_row(k, n_sweeps, tol, M, b, x);
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) X[i * k + j] = (T)x[j];
        __syncthreads();
    }
}

// --- divergences -----------------------------------------------------------------------------------------------------

// Where a Newton step leads from h, by the slope g and the curvature c: down it is damped, up it undershoots by itself.
RANDLA_FN double newton(double h, double g, double c, double root, double floor) {
    double step = -g / c, decrement = sqrt(c) * -step * root;
    if (g > 0 && decrement > CALM) step /= 1 + decrement;
    double value = c > 0 ? h + step : g > 0 ? floor : h;
    return value > floor ? value : floor;
}

// A row: its entries belong to parts of its sums, and parts to threads; `model` holds v_p.x for them.
struct counts {
    i64 r, size;
    const T *V;
    const i64 *rows;
    const double *data;
    double *x, *model, *parts, *folds;
};

// The model at x, and the greatest data_p**-1/2; 0 without data.
RANDLA_FN double begin_model(struct counts d) {
    for (int part = threadIdx.x; part < PARTS; part += blockDim.x) {
        double least = 1.0 / 0.0;
        for (i64 p = part; p < d.size; p += PARTS) {
            double sum = 0;
            for (i64 k = 0; k < d.r; ++k) sum += d.x[k] * (double)d.V[d.rows[p] * d.r + k];
            d.model[p] = sum > 0 ? sum : 1e-300;
            if (d.data[p] > 0 && d.data[p] < least) least = d.data[p];
        }
        d.parts[part] = least;
    }
    __syncthreads();
    double least = 1.0 / 0.0;
    for (int part = 0; part < PARTS; ++part)
        if (d.parts[part] < least) least = d.parts[part];
    __syncthreads();
    return 1 / sqrt(least);
}

// Coordinate k to where Newton's method leads, and the model with it.
RANDLA_FN void move(struct counts d, i64 k, double sum_of_column, double ridge, double root, double floor) {
    for (int part = threadIdx.x; part < PARTS; part += blockDim.x) {
        double slope = 0, curvature = 0;
        for (i64 p = part; p < d.size; p += PARTS) {
            if (!(d.data[p] > 0)) continue;  // nothing but the sum of the column knows it, and its model may be 0
            double ratio = (double)d.V[d.rows[p] * d.r + k] / d.model[p];
            slope += ratio * d.data[p];
            curvature += ratio * ratio * d.data[p];
        }
        d.parts[part] = slope;
        d.parts[PARTS + part] = curvature;
    }
    __syncthreads();
    double old = d.x[k], g = sum_of_column + ridge * old, c = ridge;
    for (int f = threadIdx.x; f < 2 * FOLDS; f += blockDim.x) {
        double sum = 0;
        for (int s = 0; s < PARTS / FOLDS; ++s) sum += d.parts[f * (PARTS / FOLDS) + s];
        d.folds[f] = sum;
    }
    __syncthreads();
    for (int f = 0; f < FOLDS; ++f) {
        g -= d.folds[f];
        c += d.folds[FOLDS + f];
    }
    double value = newton(old, g, c, root, floor);
    if (threadIdx.x == 0) d.x[k] = value;
    for (int part = threadIdx.x; part < PARTS && value != old; part += blockDim.x)
        for (i64 p = part; p < d.size; p += PARTS) d.model[p] += (value - old) * (double)d.V[d.rows[p] * d.r + k];
}

// Rows of more than SHORT entries have their models in `models`.
RANDLA_KERNEL divergence_sweeps(i64 blocks, i64 m, i64 r, i64 near, i64 far, i64 n_sweeps, double ridge, double floor,
                                const i64 *order, const T *V, const i64 *indices, const i64 *indptr,
                                const double *values, const double *sums, double *models, double *scratch, T *X) {
    RANDLA_SHARED(shared);
    double *x = near ? shared : scratch + blockIdx.x * far, *parts = x + r, *folds = parts + 2 * PARTS;
    for (i64 place = blockIdx.x; place < m; place += gridDim.x) {
        i64 i = order[place], first = indptr[i], size = indptr[i + 1] - first;
        double *model = size <= SHORT ? folds + 2 * FOLDS : models + first;
        struct counts d = {r, size, V, indices + first, values + first, x, model, parts, folds};
        for (i64 k = threadIdx.x; k < r; k += blockDim.x) x[k] = (double)X[i * r + k];
        __syncthreads();
        double root = begin_model(d);
        for (i64 sweep = 0; sweep < n_sweeps; ++sweep)
            for (i64 k = 0; k < r; ++k) move(d, k, sums[k], ridge, root, floor);
        __syncthreads();
        for (i64 k = threadIdx.x; k < r; k += blockDim.x) X[i * r + k] = (T)x[k];
    }
}
