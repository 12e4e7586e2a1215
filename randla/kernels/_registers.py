"""Loops whose sums stay in registers, which the compiler would write to memory at each step.

Under NUMBA_DISABLE_JIT each has a plain Python twin.
"""

from __future__ import annotations

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from ._vector import _FUSED, _INDEX, HEIGHT, LANE_BYTES, _ask, _data, _load, _splat

MOST_LANES = 8  # vectors of sums that `gathered_rows` keeps in registers: with as many loads, half of what AVX-512 has


def _add_product(builder, factor, value, spot):
    product = builder.fmul(factor, value, flags=_FUSED)
    builder.store(builder.fadd(builder.load(spot), product, flags=_FUSED), spot)


def _make_gather():
    if config.DISABLE_JIT:

        def gathered_rows(x, place, n_lanes, last, a, column, stride, factors, indices, start, stop, ahead):
            length = min(n_lanes * (LANE_BYTES // x.itemsize), last + LANE_BYTES // x.itemsize)
            for p in range(start, stop):
                first = int(indices[p]) * stride + column
                x[place : place + length] += factors[p] * a[first : first + length]

        return gathered_rows

    @intrinsic
    def gathered_rows(typingctx, x, place, n_lanes, last, a, column, stride, factors, indices, start, stop, ahead):
        """x[place + j] += the sum of factors[p] * a[indices[p] stride + column + j] over start <= p < stop.

        For the j of `n_lanes` <= MOST_LANES vectors, the last of which begins at j = `last`, where it may overlap the
        one before: it then finds the same sums.  They stay in registers; the row of index p + `ahead` is asked for.
        """

        def generate(context, builder, signature, arguments):
            target, size = _data(context, builder, signature.args[0], arguments[0])
            source, _ = _data(context, builder, signature.args[4], arguments[4])
            numbers, _ = _data(context, builder, signature.args[7], arguments[7])
            rows, _ = _data(context, builder, signature.args[8], arguments[8])
            _, place, n_lanes, last, _, column, stride, _, _, start, stop, ahead = arguments
            target, source = builder.gep(target, [place]), builder.gep(source, [column])
            lane = ir.VectorType(target.type.pointee, LANE_BYTES // size)
            count = context.make_array(signature.args[8])(context, builder, arguments[8]).nitems
            end = builder.sub(count, _INDEX(1))

            def first_of(p):
                row = builder.load(builder.gep(rows, [p]))
                return builder.mul(row if row.type == _INDEX else builder.sext(row, _INDEX), stride)

            for width in range(1, MOST_LANES + 1):
                with builder.if_then(builder.icmp_signed("==", n_lanes, _INDEX(width))):
                    offsets = [*(_INDEX(w * lane.count) for w in range(width - 1)), last]
                    sums = [cgutils.alloca_once(builder, lane) for _ in offsets]
                    for offset, total in zip(offsets, sums, strict=True):
                        builder.store(_load(builder, target, offset, lane, size), total)
                    with cgutils.for_range_slice(builder, start, stop, _INDEX(1), _INDEX) as (p, _):
                        later = builder.add(p, ahead)
                        later = first_of(builder.select(builder.icmp_signed("<", later, end), later, end))
                        for offset in offsets:
                            _ask(builder, builder.gep(source, [builder.add(later, offset)]))
                        first = first_of(p)
                        factor = _splat(builder, builder.load(builder.gep(numbers, [p])), lane)
                        for offset, total in zip(offsets, sums, strict=True):
                            value = _load(builder, source, builder.add(first, offset), lane, size)
                            _add_product(builder, factor, value, total)
                    for offset, total in zip(offsets, sums, strict=True):
                        spot = builder.bitcast(builder.gep(target, [offset]), lane.as_pointer())
                        builder.store(builder.load(total), spot, align=size)
            return context.get_dummy_value()

        i = types.intp
        return types.void(x, i, i, i, a, i, i, factors, indices, i, i, i), generate

    return gathered_rows


gathered_rows = _make_gather()


def _descend_slowly(tile, right, squares, left, scale, i, K):
    T, B, G = tile.reshape(K, -1), right.reshape(K, -1), left.reshape(K, K)
    for k in range(i, i + HEIGHT):
        row = T[k] + scale[k] * (B[k] - (G[k][:, None] * T).sum(axis=0))
        row[~(row > 0)] = 0
        squares[:] += (row - T[k]) ** 2
        T[k] = row


def _make_descent():
    if config.DISABLE_JIT:
        return _descend_slowly

    @intrinsic
    def descend_tile(typingctx, tile, right, squares, left, scale, i, K):
        """Coordinates i to i + HEIGHT of 16 columns: row k becomes max(0, row + scale[k] (right[k] - left[k] tile)).

        One after another, with the changes of those before; the squares of the changes are added to `squares`.  `tile`
        and `right` are K x 16, `left` is K x K and symmetric, all of doubles; sums and corrections stay in registers.
        """

        def generate(context, builder, signature, arguments):
            target, size = _data(context, builder, signature.args[0], arguments[0])
            wanted, total, rows, numbers = (
                _data(context, builder, signature.args[t], arguments[t])[0] for t in range(1, 5)
            )
            i, K = arguments[5:]
            lane = ir.VectorType(target.type.pointee, LANE_BYTES // size)
            zero, sides, width = ir.Constant(lane, [0.0] * lane.count), range(2), _INDEX(2 * lane.count)
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in sides] for _ in range(HEIGHT)]

            def place(row, side):
                return builder.add(builder.mul(row, width), _INDEX(side * lane.count))

            def entry(p, column):
                return _splat(builder, builder.load(builder.gep(rows, [builder.add(builder.mul(p, K), column)])), lane)

            with cgutils.for_range_slice(builder, _INDEX(0), K, _INDEX(1), _INDEX) as (p, _):
                values = [_load(builder, target, place(p, side), lane, size) for side in sides]
                for a in range(HEIGHT):
                    factor = entry(p, builder.add(i, _INDEX(a)))
                    for side in sides:
                        _add_product(builder, factor, values[side], sums[a][side])
            changes = [_load(builder, total, _INDEX(side * lane.count), lane, size) for side in sides]
            for a in range(HEIGHT):
                k = builder.add(i, _INDEX(a))
                factor, steps = _splat(builder, builder.load(builder.gep(numbers, [k])), lane), []
                for side in sides:
                    spot = builder.bitcast(builder.gep(target, [place(k, side)]), lane.as_pointer())
                    old, goal = builder.load(spot, align=size), _load(builder, wanted, place(k, side), lane, size)
                    move = builder.fmul(factor, builder.fsub(goal, builder.load(sums[a][side])), flags=_FUSED)
                    value = builder.fadd(old, move, flags=_FUSED)
                    value = builder.select(builder.fcmp_ordered(">", value, zero), value, zero)
                    builder.store(value, spot, align=size)
                    steps.append(builder.fsub(value, old))
                    square = builder.fmul(steps[side], steps[side], flags=_FUSED)
                    changes[side] = builder.fadd(changes[side], square, flags=_FUSED)
                for b in range(a + 1, HEIGHT):
                    factor = entry(builder.add(i, _INDEX(b)), k)
                    for side in sides:
                        _add_product(builder, factor, steps[side], sums[b][side])
            for side in sides:
                spot = builder.bitcast(builder.gep(total, [_INDEX(side * lane.count)]), lane.as_pointer())
                builder.store(changes[side], spot, align=size)
            return context.get_dummy_value()

        return types.void(tile, right, squares, left, scale, types.intp, types.intp), generate

    return descend_tile


descend_tile = _make_descent()
