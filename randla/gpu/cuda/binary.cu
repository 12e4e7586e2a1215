// Binary least squares: a thread for each column or row, by descents and a depth-first search, in double precision.
//
// Workspaces lie in global memory, a piece for each item of a launch.  What the search does is told in kernels/binary.py.
#include "philox.h"

#ifndef __CUDACC__
#define sqrt __builtin_sqrt
#define fabs __builtin_fabs
#endif

#define SHIFT 0.3    // of the mean diagonal entry
#define FLOOR (16 * 2.220446049250313e-16)  // of the sum of all terms: changes below are rounding
#define VECTORS 13  // of k + 1 doubles in a workspace; the last one is the order of a row

RANDLA_FN double binary_value(i64 k, const double *G, const double *b, const double *z) {
    double total = 0;
    for (i64 i = 0; i < k; ++i) {
        if (z[i] == 0) continue;
        total -= 2 * b[i];
        for (i64 j = 0; j < k; ++j) total += G[i * k + j] * z[j];
    }
    return total;
}

// Change the entry that lowers the objective most, or two of them where one does not, until nothing does.
RANDLA_FN void binary_descent(i64 k, const double *G, const double *b, double *z, double *g, double *d, double floor) {
    for (i64 i = 0; i < k; ++i) {
        g[i] = -b[i];
        for (i64 j = 0; j < k; ++j) g[i] += G[i * k + j] * z[j];
    }
    for (;;) {
        double best = -floor;
        i64 change[2] = {-1, -1};
        for (i64 i = 0; i < k; ++i) {
            d[i] = G[i * k + i] + 2 * (1 - 2 * z[i]) * g[i];
            if (d[i] < best) best = d[i], change[0] = i;
        }
        bool single = change[0] >= 0;
        for (i64 a = 0; a < k && !single; ++a)
            for (i64 c = 0; c < a; ++c) {
                double both = d[a] + d[c] + 2 * (1 - 2 * z[a]) * (1 - 2 * z[c]) * G[a * k + c];
                if (both < best) best = both, change[0] = a, change[1] = c;
            }
        if (change[0] < 0) return;
        for (int t = 0; t < 2; ++t) {
            if (change[t] < 0) continue;
            double step = 1 - 2 * z[change[t]];
            z[change[t]] += step;
            for (i64 i = 0; i < k; ++i) g[i] += step * G[change[t] * k + i];
        }
    }
}

// R.T R = G + shift I with the entries in `order`, the least pivot that is left first.
RANDLA_FN double binary_factorisation(i64 k, const double *G, double *R, double *order) {
    double trace = 0;
    for (i64 i = 0; i < k; ++i) trace += G[i * k + i];
    double shift = trace > 0 ? SHIFT * trace / (double)k : 1;
    for (i64 e = 0; e < k * k; ++e) R[e] = G[e];
    for (i64 i = 0; i < k; ++i) order[i] = (double)i, R[i * k + i] += shift;
    for (i64 j = 0; j < k; ++j) {
        i64 at = j;
        for (i64 i = j + 1; i < k; ++i)
            if (R[i * k + i] < R[at * k + at]) at = i;
        double kept;
        for (i64 t = 0; t < k; ++t) kept = R[j * k + t], R[j * k + t] = R[at * k + t], R[at * k + t] = kept;
        for (i64 t = 0; t < k; ++t) kept = R[t * k + j], R[t * k + j] = R[t * k + at], R[t * k + at] = kept;
        kept = order[j], order[j] = order[at], order[at] = kept;
        double pivot = R[j * k + j];
        pivot = sqrt(pivot > 1e-12 * shift ? pivot : 1e-12 * shift);
        R[j * k + j] = pivot;
        for (i64 t = j + 1; t < k; ++t) R[j * k + t] /= pivot, R[t * k + j] = 0;
        for (i64 s = j + 1; s < k; ++s)
            for (i64 t = j + 1; t < k; ++t) R[s * k + t] -= R[j * k + s] * R[j * k + t];
    }
    return shift;
}

// Depth first from the incumbent z, the nearer value first; 0 if the nodes ran out.  A level that has no value left
// has 2 in `tried`.
RANDLA_FN int binary_walk(i64 k, const double *R, const double *c, double *z, double floor, i64 max_nodes,
                          double *trial, double *near, double *tried, double *rest, double *above) {
    double best = 0, size = 0;
    for (i64 i = 0; i < k; ++i) {
        double value = c[i];
        for (i64 j = i; j < k; ++j) value -= R[i * k + j] * z[j];
        best += value * value;
        size += c[i] * c[i];
    }
    floor += FLOOR * size;
    i64 level = k - 1, nodes = 0;
    above[k] = 0;
    rest[level] = c[level];
    tried[level] = 0;
    near[level] = c[level] > 0.5 * R[level * k + level];
    while (level < k) {
        if (tried[level] == 2) {
            ++level;
            continue;
        }
        if (nodes >= max_nodes) return 0;
        double value = tried[level] == 0 ? near[level] : 1 - near[level];
        tried[level] += 1;
        ++nodes;
        double left = rest[level] - R[level * k + level] * value, cost = above[level + 1] + left * left;
        if (!(cost < best - floor)) {
            tried[level] = 2;
            continue;
        }
        trial[level] = value;
        if (level == 0) {
            best = cost;
            for (i64 i = 0; i < k; ++i) z[i] = trial[i];
            tried[level] = 2;
            continue;
        }
        above[level] = cost;
        --level;
        double total = c[level];
        for (i64 j = level + 1; j < k; ++j) total -= R[level * k + j] * trial[j];
        rest[level] = total;
        tried[level] = 0;
        near[level] = total > 0.5 * R[level * k + level];
    }
    return 1;
}

// Replace z by the best vector found if that is better; whether it is proved.  z and b begin the workspace.
RANDLA_FN int binary_best(i64 k, const double *G, const double *R, const double *order, double shift, i64 n_starts,
                          const signed char *starts, i64 max_nodes, double *work) {
    i64 w = k + 1;
    double *z = work, *b = z + w, *g = b + w, *d = g + w, *trial = d + w, *best = trial + w, *c = best + w;
    double *rest = c + w, *near = rest + w, *above = near + w, *tried = above + w, *mixed = tried + w;
    double total = 0;
    for (i64 i = 0; i < k; ++i) {
        total += 2 * fabs(b[i]);
        for (i64 j = 0; j < k; ++j) total += fabs(G[i * k + j]);
    }
    double floor = FLOOR * total, least = binary_value(k, G, b, z);
    if (!(fabs(least + floor) <= 1.7976931348623157e308)) return 0;  // NaN or infinity
    for (i64 i = 0; i < k; ++i) best[i] = z[i];
    for (i64 s = -1; s < n_starts; ++s) {
        for (i64 i = 0; i < k; ++i) trial[i] = s < 0 ? z[i] : (double)starts[s * k + i];
        binary_descent(k, G, b, trial, g, d, floor);
        double value = binary_value(k, G, b, trial);
        if (value < least - floor) {
            least = value;
            for (i64 i = 0; i < k; ++i) best[i] = trial[i];
        }
    }
    for (i64 i = 0; i < k; ++i) z[i] = best[i];
    if (max_nodes <= 0) return 0;
    for (i64 i = 0; i < k; ++i) {
        double value = b[(i64)order[i]] + 0.5 * shift;
        for (i64 j = 0; j < i; ++j) value -= R[j * k + i] * c[j];
        c[i] = value / R[i * k + i];
        mixed[i] = best[(i64)order[i]];
    }
    int proved = binary_walk(k, R, c, mixed, floor, max_nodes, trial, near, tried, rest, above);
    for (i64 i = 0; i < k; ++i) trial[(i64)order[i]] = mixed[i];
    if (!proved) binary_descent(k, G, b, trial, g, d, floor);
    if (binary_value(k, G, b, trial) < least - floor)
        for (i64 i = 0; i < k; ++i) z[i] = trial[i];
    return proved;
}

// The triangle that all columns share, by one thread: its order and its shift follow it.
RANDLA_KERNEL binary_factor(i64 once, i64 k, const double *G, double *R) {
    RANDLA_EACH(i, once) R[k * k + k] = binary_factorisation(k, G, R, R + k * k);
}

// Columns first .. first + n - 1 of all `columns`; R is what binary_factor wrote.
RANDLA_KERNEL binary_search(i64 n, i64 k, i64 first, i64 columns, i64 n_starts, i64 max_nodes, const double *G,
                            const double *R, const T *B, const signed char *starts, double *scratch, signed char *Z,
                            signed char *proved) {
    RANDLA_EACH(j, n) {
        double *work = scratch + j * VECTORS * (k + 1);
        for (i64 i = 0; i < k; ++i) {
            work[i] = (double)Z[i * columns + first + j];
            work[k + 1 + i] = (double)B[i * columns + first + j];
        }
        proved[first + j] = binary_best(k, G, R, R + k * k, R[k * k + k], n_starts, starts, max_nodes, work) != 0;
        for (i64 i = 0; i < k; ++i) Z[i * columns + first + j] = (signed char)work[i];
    }
}

// Rows first .. first + n - 1: each forms its own G, which is followed by its triangle.
RANDLA_KERNEL masked_binary_search(i64 n, i64 k, i64 first, i64 n_starts, i64 max_nodes, i64 weighted, const T *V,
                                   const i64 *indices, const i64 *indptr, const T *weights, const T *targets,
                                   const signed char *starts, double *scratch, signed char *Z, signed char *proved) {
    RANDLA_EACH(r, n) {
        i64 i = first + r, size = VECTORS * (k + 1) + 2 * k * k;
        double *work = scratch + r * size, *G = work + VECTORS * (k + 1), *R = G + k * k;
        proved[i] = 1;
        if (indptr[i] == indptr[i + 1]) continue;
        double *z = work, *b = work + k + 1, *order = work + (VECTORS - 1) * (k + 1);
        for (i64 a = 0; a < k; ++a) {
            z[a] = (double)Z[i * k + a];
            b[a] = 0;
            for (i64 c = 0; c < k; ++c) G[a * k + c] = 0;
        }
        for (i64 p = indptr[i]; p < indptr[i + 1]; ++p) {
            const T *v = V + indices[p] * k;
            double weight = weighted ? (double)weights[p] : 1, target = (double)targets[p];
            for (i64 a = 0; a < k; ++a) {
                b[a] += target * (double)v[a];
                for (i64 c = 0; c <= a; ++c) G[a * k + c] += weight * (double)v[a] * (double)v[c];
            }
        }
        for (i64 a = 0; a < k; ++a)
            for (i64 c = 0; c < a; ++c) G[c * k + a] = G[a * k + c];
        double shift = max_nodes > 0 ? binary_factorisation(k, G, R, order) : 0;
        proved[i] = binary_best(k, G, R, order, shift, n_starts, starts, max_nodes, work) != 0;
        for (i64 a = 0; a < k; ++a) Z[i * k + a] = (signed char)z[a];
    }
}
