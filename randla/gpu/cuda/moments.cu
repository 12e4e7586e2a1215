// Sums over pairs of entries of a row: all pairs are listed, and after a sort one thread adds up what belongs together.
#include "philox.h"

// The pairs of entry p with the later ones of its row: keys, and both entries.  `first[p]` is where they begin.
RANDLA_KERNEL pair_list(i64 n, i64 n_columns, i64 n_groups, const i64 *indices, const i64 *rows, const i64 *pointers,
                        const i64 *groups, const i64 *first, i64 *keys, i64 *left_entry, i64 *right_entry) {
    RANDLA_EACH(p, n) {
        i64 row = rows[p], to = first[p];
        for (i64 q = p + 1; q < pointers[row + 1]; ++q, ++to) {
            keys[to] = (indices[p] * n_columns + indices[q]) * n_groups + groups[row];
            left_entry[to] = p;
            right_entry[to] = q;
        }
    }
}

// Item (pair, t): the products of factor t over the list of the pair, in the order of the rows.
RANDLA_KERNEL pair_totals(i64 n, i64 width, const i64 *starts, const i64 *order, const i64 *left_entry,
                          const i64 *right_entry, const double *left, const double *right, double *sums) {
    RANDLA_EACH(item, n) {
        i64 pair = item / width, t = item % width;
        double sum = 0;
        for (i64 e = starts[pair]; e < starts[pair + 1]; ++e) {
            i64 from = order[e];
            sum += left[left_entry[from] * width + t] * right[right_entry[from] * width + t];
        }
        sums[item] = sum;
    }
}
