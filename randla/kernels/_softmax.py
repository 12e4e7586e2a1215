"""Vector passes of log-sum-exp: scaled gaps with their maximum, exponentials with their sum.

Written in LLVM's vector types, since neither a maximum nor a sum in a fixed order is vectorised otherwise.  Under
NUMBA_DISABLE_JIT each has a plain Python twin.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from ._exponential import LN2_HIGH, LN2_LOW, LOG2E, ROUND_64
from ._vector import _FUSED, _INDEX, LANE_BYTES, _data, _folded, _halves, _load, _splat

LANES = LANE_BYTES // 8
DEPTH = 4  # vectors under way at a time: their chains of multiplications hide each other's latency
LEAST = -708.0  # below, 0 is returned: the next numbers would be subnormal, and slow
#: exp(r) = 1 + r + r**2 (c0 + c1 r + ...) for |r| <= log(2) / 2: Remez's exchange, relative error 3e-16
SERIES = (
    0.49999999999998324, 0.1666666666661151, 0.04166666666813763, 0.0083333333708925, 0.0013888888516013153,
    0.00019841185202531638, 2.4801931845475093e-05, 2.7635006253318475e-06, 2.7476784503711416e-07,
)  # fmt: skip


def _constant(kind, number):
    return ir.Constant(kind, [number] * kind.count)


def _exponentials(builder, values):
    """exp of each vector of doubles <= 0, step by step side by side."""
    kind = values[0].type
    whole, shift = ir.VectorType(_INDEX, kind.count), _constant(ir.VectorType(_INDEX, kind.count), 52)
    one = _constant(kind, 1.0)

    def fused(xs, ys, zs):
        products = [builder.fmul(x, y, flags=_FUSED) for x, y in zip(xs, ys, strict=True)]
        return [builder.fadd(p, z, flags=_FUSED) for p, z in zip(products, zs, strict=True)]

    def all_of(number):
        return [_constant(kind, number)] * len(values)

    shifted = fused(values, all_of(LOG2E), all_of(ROUND_64))
    turns = [builder.fsub(s, c) for s, c in zip(shifted, all_of(ROUND_64), strict=True)]
    rest = fused(turns, all_of(-LN2_HIGH), values)
    rest = fused(turns, all_of(-LN2_LOW), rest)
    total = all_of(SERIES[-1])
    for coefficient in (*reversed(SERIES[:-1]), 1.0, 1.0):
        total = fused(total, rest, all_of(coefficient))
    found = []
    for value, s, p in zip(values, shifted, total, strict=True):
        power = builder.shl(builder.bitcast(s, whole), shift)
        result = builder.bitcast(builder.add(builder.bitcast(p, whole), power), kind)
        tiny = builder.fcmp_ordered("<", value, _constant(kind, LEAST))
        found.append(builder.select(tiny, builder.fsub(one, one), result))
    return found


def _make_exponential_sum():
    if config.DISABLE_JIT:

        def exponential_sum(x, top, n):
            with np.errstate(all="ignore"):
                run = x[:n] - top
                x[:n] = np.where(run < LEAST, 0.0, np.exp(run))
            return x[:n].sum()

        return exponential_sum

    @intrinsic
    def exponential_sum(typingctx, x, top, n):
        """x[j] = exp(x[j] - top) for j < n, whole cache lines of doubles that are at most `top`; their sum."""

        def generate(context, builder, signature, arguments):
            start, size = _data(context, builder, signature.args[0], arguments[0])
            lane, n = ir.VectorType(ir.DoubleType(), LANES), arguments[2]
            top = _splat(builder, arguments[1], lane)
            sums = [cgutils.alloca_once_value(builder, _constant(lane, 0.0)) for _ in range(DEPTH)]

            def step(j, depth):
                places = [builder.add(j, _INDEX(k * LANES)) for k in range(depth)]
                values = [builder.fsub(_load(builder, start, place, lane, size), top) for place in places]
                for place, value, total in zip(places, _exponentials(builder, values), sums, strict=False):
                    spot = builder.bitcast(builder.gep(start, [place]), lane.as_pointer())
                    builder.store(value, spot, align=size)
                    builder.store(builder.fadd(builder.load(total), value), total)

            deep = _INDEX(DEPTH * LANES)
            main = builder.sub(n, builder.srem(n, deep))
            with cgutils.for_range_slice(builder, _INDEX(0), main, deep, _INDEX) as (j, _):
                step(j, DEPTH)
            with cgutils.for_range_slice(builder, main, n, _INDEX(LANES), _INDEX) as (j, _):
                step(j, 1)
            first, second, third, fourth = (builder.load(total) for total in sums)
            return _folded(builder, builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth)))

        return types.float64(x, types.float64, types.intp), generate

    return exponential_sum


def _make_scaled_gaps():
    if config.DISABLE_JIT:

        def scaled_gaps(out, scale, g, c, place, n):
            with np.errstate(all="ignore"):
                out[:n] = scale * (g[:n] - c[place : place + n])
            return out[:n].max(initial=-np.inf)

        return scaled_gaps

    @intrinsic
    def scaled_gaps(typingctx, out, scale, g, c, place, n):
        """out[j] = scale * (g[j] - c[place + j]) for j < n, and the largest; `out` and `g` are of doubles."""

        def generate(context, builder, signature, arguments):
            target, size = _data(context, builder, signature.args[0], arguments[0])
            other, _ = _data(context, builder, signature.args[2], arguments[2])
            costs, narrow = _data(context, builder, signature.args[3], arguments[3])
            costs, n = builder.gep(costs, [arguments[4]]), arguments[5]
            real, lane = ir.DoubleType(), ir.VectorType(ir.DoubleType(), LANES)
            least = -float("inf")
            tops = [cgutils.alloca_once_value(builder, _constant(lane, least)) for _ in range(2)]
            last = cgutils.alloca_once_value(builder, ir.Constant(real, least))

            def step(j, kind, scale, top):
                stored = kind if narrow == size else _like(kind, costs.type.pointee)
                cost = _load(builder, costs, j, stored, narrow)
                cost = cost if narrow == size else builder.fpext(cost, kind)
                value = builder.fmul(scale, builder.fsub(_load(builder, other, j, kind, size), cost))
                builder.store(value, builder.bitcast(builder.gep(target, [j]), kind.as_pointer()), align=size)
                best = builder.load(top)
                builder.store(builder.select(builder.fcmp_ordered(">", value, best), value, best), top)

            wide = _splat(builder, arguments[1], lane)
            deep, whole = _INDEX(2 * LANES), builder.sub(n, builder.srem(n, _INDEX(LANES)))
            main = builder.sub(n, builder.srem(n, deep))
            with cgutils.for_range_slice(builder, _INDEX(0), main, deep, _INDEX) as (j, _):
                step(j, lane, wide, tops[0])
                step(builder.add(j, _INDEX(LANES)), lane, wide, tops[1])
            with cgutils.for_range_slice(builder, main, whole, _INDEX(LANES), _INDEX) as (j, _):
                step(j, lane, wide, tops[0])
            with cgutils.for_range_slice(builder, whole, n, _INDEX(1), _INDEX) as (j, _):
                step(j, real, arguments[1], last)
            return _largest(builder, [builder.load(top) for top in tops], builder.load(last))

        kinds = out, types.float64, g, c, types.intp, types.intp
        return types.float64(*kinds), generate

    return scaled_gaps


def _like(kind, real):
    """The vector type of as many numbers of type `real` as `kind` has, or `real`."""
    return ir.VectorType(real, kind.count) if isinstance(kind, ir.VectorType) else real


def _largest(builder, vectors, number):
    """The largest element of two vectors and a number."""

    def larger(a, b):
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    value = larger(*vectors)
    while value.type.count > 2:
        value = larger(*_halves(builder, value))
    low, high = (builder.extract_element(value, ir.IntType(32)(k)) for k in range(2))
    return larger(larger(low, high), number)


exponential_sum, scaled_gaps = _make_exponential_sum(), _make_scaled_gaps()
