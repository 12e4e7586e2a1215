// Both products of a normal equation in one read of a row-major matrix: a tile of rows is used again while it lies in
// the first-level cache.
//
// A thread block owns a stripe of rows.  For each tile of it, teams of threads take the products of rows with x; one
// thread to a row folds the parts of its team in order; then each thread adds its own columns of the tile to the
// stripe's sum.  No atomics, so a result does not change from run to run.
#include "philox.h"

#define LANES 32      // threads of a team: a warp
#define MOST_ROWS 32  // of a tile

// sums (n_stripes, n) and squares (n_stripes) are those of the stripes of `height` rows; b and w are read if told.
RANDLA_KERNEL normal_sweep(i64 n_stripes, i64 m, i64 n, i64 height, i64 tile, i64 residual, i64 weighted, const T *A,
                           const T *x, const T *b, const T *w, T *sums, double *squares) {
    __shared__ T parts[MOST_ROWS * (LANES + 1)];  // one more to a row: its threads read from different banks
    __shared__ T factors[MOST_ROWS];
    __shared__ double totals[MOST_ROWS];
    int thread = threadIdx.x, size = blockDim.x, lanes = size < LANES ? size : LANES;
    int lane = thread % lanes, team = thread / lanes, teams = size / lanes;
    for (i64 stripe = blockIdx.x; stripe < n_stripes; stripe += gridDim.x) {
        i64 first = stripe * height, last = first + height < m ? first + height : m;
        T *g = sums + stripe * n;
        double total = 0;
        for (i64 top = first; top < last; top += tile) {
            int rows = (int)(last - top < tile ? last - top : tile);
            for (int r = team; r < rows; r += teams) {
                const T *row = A + (top + r) * n;
                T sum = 0;
                for (i64 j = lane; j < n; j += lanes) sum += row[j] * x[j];
                parts[r * (LANES + 1) + lane] = sum;
            }
            __syncthreads();
            for (int r = thread; r < rows; r += size) {
                T sum = 0;
                for (int l = 0; l < lanes; ++l) sum += parts[r * (LANES + 1) + l];
                T value = residual ? b[top + r] - sum : sum;
                factors[r] = weighted ? w[top + r] * value : value;
                total += (double)factors[r] * (double)value;
            }
            __syncthreads();
            for (i64 j = thread; j < n; j += size) {
                T sum = top > first ? g[j] : 0;
                for (int r = 0; r < rows; ++r) sum += factors[r] * A[(top + r) * n + j];
                g[j] = sum;
            }
        }
        if (thread < MOST_ROWS) totals[thread] = total;
        __syncthreads();
        if (thread == 0) {
            double sum = 0;
            for (int r = 0; r < (size < MOST_ROWS ? size : MOST_ROWS); ++r) sum += totals[r];
            squares[stripe] = sum;
        }
    }
}
