"""Programs that run the kernels with barriers, one thread to a CUDA thread, for a sanitizer to watch.

Each is put behind the host text of its source (cuda_on_host.hpp), and makes every barrier of it matter.
"""

from __future__ import annotations

# A transform of 64 rows by 3 columns in two passes, the second sampled; then the adjoint.
TRANSFORMS = """
int main() {
    std::vector<T> a(192, 1), work(192), out(192);
    std::vector<i64> starts(65), items(64);
    for (i64 i = 0; i < 64; ++i) starts[i + 1] = i + 1, items[i] = i;
    for (i64 flip = 1; flip >= -1; flip -= 2) {
        launch(2, 16, [&] {
            fwht_pass(16, 1, 2, 7, 0, flip, 0, 3, 6, 0, 3, 1, flip < 0 ? -1 : 0, 64, starts.data(), items.data(),
                      0, 192, a.data(), 0, 192, work.data());
        });
        launch(2, 16, [&] {
            fwht_pass(6, 1, 2, 7, 0, 0, 0, 3, 6, 3, 3, 2, flip > 0 ? 1 : 0, 64, starts.data(), items.data(),
                      0, 192, work.data(), 0, 192, out.data());
        });
    }
}
"""


# Five stripes of nine rows in tiles of four, each with a residual and weights.
SWEEPS = """
int main() {
    std::vector<T> a(43 * 21, 1), x(21, 1), b(43, 1), w(43, 1), sums(5 * 21);
    std::vector<double> squares(5);
    launch(2, 16, [&] {
        normal_sweep(5, 43, 21, 9, 4, 1, 1, a.data(), x.data(), b.data(), w.data(), sums.data(), squares.data());
    });
}
"""


# Three pivots out of races that the diagonal decides, then greedy ones of the same matrix.
PIVOTS = """
int main() {
    std::vector<double> h(1600), d(40), before(40), times{1, 1, 1}, least(40), l(1600);
    std::vector<i64> index{7, 21, 30}, chosen(40, -1);
    for (i64 i = 0; i < 1600; ++i) h[i] = i % 41 == 0 ? 2 : 0.1;
    for (i64 i = 0; i < 40; ++i) d[i] = before[i] = 2;
    launch(1, 16, [&] {
        race_pivots(1, 40, 3, 1, h.data(), d.data(), before.data(), index.data(), times.data(), least.data(),
                    chosen.data(), l.data());
    });
    d = before;
    launch(1, 16, [&] { greedy_pivots(1, 40, 0.5, h.data(), d.data(), least.data(), chosen.data(), l.data()); });
}
"""


# Five rows of no entry, one, few and two tiles of them; row 3 is singular.  Queries: zeros there, two of a regular row,
# one of an empty one.  33 columns to 24 threads: a thread's parts of an inner product are not those that it writes.
COMPLETION = """
int main() {
    const i64 m = 5, n = 20, k = 33, width = 36, tall = 40, groups = 2, sketch_size = 36, nnz = 3, nnz_of_rows = 86;
    std::vector<T> V(n * k), w(nnz_of_rows, 1), t(nnz_of_rows, 1), X(m * k), X0(m * k, 1), Y(nnz_of_rows);
    std::vector<double> base(k * k), ridge{1, 1, 1, 0, 1}, plain(k, 1), scale(m, 1), pivots(m), residuals(m), none(1);
    std::vector<double> U(4 * k), variances(4);
    for (i64 e = k; e < 4 * k; ++e) U[e] = 1;
    std::vector<i64> indptr{0, 3, 73, 73, 74, 86}, order{1, 3, 4, 0, 2}, indices(nnz_of_rows), steps(m);
    std::vector<i64> rows{3, 1, 1, 2}, members{0, 1, 2, 3}, starts{0, 1, 3}, groups_of{0, 1, 2};
    for (i64 e = 0; e < n * k; ++e) V[e] = (T)(e * 37 % 101) / 50 - 1;
    for (i64 p = 0; p < nnz_of_rows; ++p) indices[p] = p * 7 % n;
    i64 matrix = k * (k + 1) / 2, tile = 2 * k + tall * (width + 2), steps_space = (7 + groups) * k + 64 * 10 + 32;
    auto direct = [&](i64 based) {
        i64 near = tile + matrix;
        launch(2, 24, [&] {
            masked_cholesky(5, m, k, tall, width, near, 0, 1, based, order.data(), V.data(), indices.data(),
                            indptr.data(), w.data(), t.data(), base.data(), ridge.data(), none.data(), X.data(),
                            pivots.data());
        }, 8 * near);
    };
    direct(0);
    direct(1);
    launch(1, 24, [&] {
        masked_variances(3, 3, 4, k, tall, width, tile + 32 + matrix, 0, 1, 0, groups_of.data(), starts.data(),
                         members.data(), V.data(), indices.data(), indptr.data(), w.data(), base.data(), ridge.data(),
                         rows.data(), U.data(), none.data(), variances.data());
    }, 8 * (tile + 32 + matrix));
    const i64 qr_space = 2 * k + tall * (k + 1) + matrix;
    launch(2, 24, [&] {
        masked_qr(5, m, k, tall, qr_space, 0, 1, 1e-14, order.data(), V.data(), indices.data(), indptr.data(), w.data(),
                  t.data(), ridge.data(), none.data(), X.data(), pivots.data());
    }, 8 * qr_space);
    launch(2, 24, [&] {
        masked_cg(5, m, k, groups, steps_space, 0, 1, 1, 0.0, 3, order.data(), V.data(), indices.data(), indptr.data(),
                  w.data(), t.data(), base.data(), ridge.data(), plain.data(), scale.data(), X0.data(), none.data(),
                  X.data(), steps.data(), residuals.data());
    }, 8 * steps_space);
    i64 near = steps_space + 96 + matrix + sketch_size * width;
    launch(2, 24, [&] {
        masked_sketched_cg(5, 1, 2, 0, m, k, groups, near, 0, 1, sketch_size, nnz, width, 0.0, 3, order.data(),
                           V.data(), indices.data(), indptr.data(), w.data(), t.data(), ridge.data(), X0.data(),
                           none.data(), X.data(), steps.data(), residuals.data());
    }, 8 * near);
    launch(2, 24, [&] {
        sampled_products(2, nnz_of_rows, m, k, X.data(), V.data(), indices.data(), indptr.data(), Y.data());
    });
    std::vector<T> scores(2 * 40), values(2 * 3);
    std::vector<i64> columns(2 * 3), seen{7, 30, 2}, seen_of{0, 2, 3};
    for (i64 e = 0; e < 80; ++e) scores[e] = (T)(e * 37 % 101);
    launch(1, 16, [&] {
        top_columns(2, 2, 40, 3, seen.data(), seen_of.data(), scores.data(), columns.data(), values.data());
    });
}
"""

# Six rows and nine columns for eight threads, dense and then with two entries in each row.
SYMMETRIC = """
int main() {
    const i64 n = 6, r = 9;
    std::vector<T> A(n * n, 1), H(n * r, (T)0.5);
    std::vector<double> G(r * r, n * 0.25), p(r), q(r), fall(1);
    std::vector<i64> indices(2 * n), indptr(n + 1);
    for (i64 i = 0; i < n; ++i) indices[2 * i] = i, indices[2 * i + 1] = (i + 1) % n, indptr[i + 1] = 2 * (i + 1);
    for (i64 sparse = 0; sparse < 2; ++sparse)
        launch(1, 8, [&] {
            symmetric_sweep(1, n, r, sparse, A.data(), indices.data(), indptr.data(), G.data(), p.data(), q.data(),
                            H.data(), fall.data());
        });
}
"""

# Three tiles of columns; 20 parts to 16 threads, two of them equal, so that a system with all of them is singular; rows
# of no entry, few and two tiles of them, whose solution is 0, and one whose model is not in the workspace.
FACTORS = """
int main() {
    const i64 n = 45, r = 20, size = 1200, tall = 40;
    std::vector<double> room(r * r + 2 * r), none(1), ridge(4, 0.5), sums(r, 1), data(size, 1), models(size);
    double *G = room.data() + 2 * r;  // places that a thread reads too early are -1
    std::vector<T> B(r * n), X(r * n), V(n * r), t(size, -1), F(4 * r, 1);
    std::vector<i64> found(n), indices(size), indptr{0, 3, 3, 73, size}, order{3, 2, 0, 1};
    for (i64 e = 0; e < n * r; ++e) V[e] = (T)(e * 37 % 101) / 50, B[e] = (T)(e * 53 % 97) / 40 - 1, X[e] = e % 2;
    for (i64 e = 0; e < n; ++e) V[e * r + 5] = V[e * r + 4];
    for (i64 p = 0; p < size; ++p) indices[p] = p * 7 % n;
    for (i64 e = 0; e < r * r; ++e)
        for (i64 j = 0; j < n; ++j) G[e] += (double)V[j * r + e / r] * (double)V[j * r + e % r];
    std::vector<T> pivoted(r * n, 1);
    launch(1, 32, [&] {
        nonneg_sweeps(1, r, n, r, 3, 32 * (r + 1), 0, 1, 1e-3, G, B.data(), none.data(), X.data());
    }, 8 * (32 * (r + 1) + r * r));
    const i64 pivots_space = 7 * r + r * (r + 1) / 2;
    launch(2, 16, [&] {
        nonneg_pivots(4, r, 4, pivots_space, 0, 9, 1e-12, G, B.data(), none.data(), pivoted.data(),
                      found.data());
    }, 8 * pivots_space);
    const i64 rows_space = 2 * r + tall * (r + 2) + r * (r + 1) / 2;
    launch(1, 16, [&] {
        masked_nonneg_sweeps(1, 3, r, tall, r, rows_space, 0, 0, 1, 2, 0.0, order.data() + 1, V.data(), indices.data(),
                             indptr.data(), t.data(), t.data(), G, ridge.data(), none.data(), F.data());
    }, 8 * rows_space);
    const i64 model_space = r + 2 * 128 + 2 * 16 + 1024;
    launch(2, 16, [&] {
        divergence_sweeps(4, 4, r, model_space, 0, 1, 0.5, 1e-9, order.data(), V.data(), indices.data(), indptr.data(),
                          data.data(), sums.data(), models.data(), none.data(), F.data());
    }, 8 * model_space);
}
"""

# Ten rows, three groups of four for two blocks, and 40 columns, from points; then what is kept of the plan, with space
# on both sides for what threads write that read counts too early.
TRANSPORT = """
int main() {
    const i64 n = 10, m = 40;
    std::vector<T> none(1);
    std::vector<double> X(n), Y(m), g(m, 0.1), f(n, -0.5), tops(n), sums(n), factors(n), prices(n), plan(n * m);
    std::vector<double> parts(n * m), columns(m), least(n), data(3 * n * m);
    std::vector<i64> counts(n), indptr(n + 1);
    std::vector<int> indices(3 * n * m);
    for (i64 i = 0; i < n; ++i) X[i] = 0.07 * i;
    for (i64 j = 0; j < m; ++j) Y[j] = 0.02 * j;
    launch(2, 8, [&] {
        row_pass(3, 2, 1, n, m, 1, 0.1, none.data(), X.data(), Y.data(), g.data(), f.data(), tops.data(), sums.data(),
                 factors.data(), prices.data());
    }, 8 * 3 * 4 * 8);
    launch(2, 8, [&] {
        column_parts(3 * m, 4, 1, n, m, 1, 0.1, none.data(), X.data(), Y.data(), g.data(), tops.data(), factors.data(),
                     parts.data());
    });
    launch(2, 8, [&] { add_parts(m, 3, parts.data(), columns.data()); });
    launch(2, 8, [&] {
        plan_tile(3 * m, 0, n, 1, n, m, 1, 0.1, none.data(), X.data(), Y.data(), g.data(), tops.data(), factors.data(),
                  plan.data());
    });
    launch(2, 8, [&] {
        plan_thresholds(n, m, 0.01, plan.data(), sums.data(), factors.data(), least.data(), counts.data());
    }, 8 * (64 * 8 + 64 + 8));
    for (i64 i = 0; i < n; ++i) indptr[i + 1] = indptr[i] + counts[i];
    launch(2, 8, [&] {
        plan_fill(n, m, 0, plan.data(), least.data(), indptr.data(), data.data() + n * m, indices.data() + n * m);
    }, 8 * 8);
}
"""

PROGRAMS = {
    "completion": COMPLETION,
    "hadamard": TRANSFORMS,
    "nmf": FACTORS,
    "pivots": PIVOTS,
    "regression": SWEEPS,
    "symmetric": SYMMETRIC,
    "transport": TRANSPORT,
}
