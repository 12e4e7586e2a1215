"""What the compiler does not find by itself: vector butterflies, signed copies and sums, prefetch hints.

Written in LLVM's vector types, because a loop over several slices of one array is not vectorised: the compiler can't
tell that they don't overlap.  Under NUMBA_DISABLE_JIT each has a plain Python twin.
"""

from __future__ import annotations

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

LANE_BYTES = 64  # one cache line: eight doubles or sixteen floats at a time

_INDEX, _WORD = ir.IntType(64), ir.IntType(32)
_FUSED = ("contract",)  # a fused multiply-add rounds once instead of twice


def _stages(builder, values):
    """The Sylvester transform of the list of vectors: log2(len) stages of sums and differences."""
    h = 1
    while h < len(values):
        for first in range(0, len(values), 2 * h):
            for q in range(first, first + h):
                a, b = values[q], values[q + h]
                values[q], values[q + h] = builder.fadd(a, b), builder.fsub(a, b)
        h *= 2
    return values


def _butterfly(radix):
    if config.DISABLE_JIT:

        def butterfly(x, offset, length):
            view = x[offset : offset + radix * length].reshape(radix, length)
            h = 1
            while h < radix:
                for first in range(0, radix, 2 * h):
                    for q in range(first, first + h):
                        view[q], view[q + h] = view[q] + view[q + h], view[q] - view[q + h]
                h *= 2

        return butterfly

    @intrinsic
    def butterfly(typingctx, x, offset, length):
        """Transform the `radix` runs of `length` numbers from x[offset] on; `length` is a multiple of a lane."""

        def generate(context, builder, signature, arguments):
            view = context.make_array(signature.args[0])(context, builder, arguments[0])
            size = context.get_abi_sizeof(view.data.type.pointee)
            lane = ir.VectorType(view.data.type.pointee, LANE_BYTES // size)
            first, run = builder.gep(view.data, [arguments[1]]), arguments[2]
            with cgutils.for_range_slice(builder, _INDEX(0), run, _INDEX(lane.count), _INDEX) as (j, _):
                places = [
                    builder.bitcast(
                        builder.gep(first, [builder.add(j, builder.mul(run, _INDEX(q)))]), lane.as_pointer()
                    )
                    for q in range(radix)
                ]
                values = [builder.load(place, align=size) for place in places]
                for place, value in zip(places, _stages(builder, values), strict=True):
                    builder.store(value, place, align=size)
            return context.get_dummy_value()

        return types.void(x, types.intp, types.intp), generate

    return butterfly


butterfly_2, butterfly_4, butterfly_8 = _butterfly(2), _butterfly(4), _butterfly(8)


def _data(context, builder, array_type, value):
    """Pointer to the elements of an array, and their size in bytes."""
    data = context.make_array(array_type)(context, builder, value).data
    return data, context.get_abi_sizeof(data.type.pointee)


def _splat(builder, value, lane):
    """A vector whose elements are all `value`."""
    nothing = ir.Constant(lane, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(_WORD, lane.count), [0] * lane.count)
    return builder.shuffle_vector(builder.insert_element(nothing, value, _WORD(0)), nothing, zeros)


def _make_signed_copy():
    if config.DISABLE_JIT:

        def signed_copy(x, offset, a, first, length, s):
            x[offset : offset + length] = s * a[first : first + length]

        return signed_copy

    @intrinsic
    def signed_copy(typingctx, x, offset, a, first, length, s):
        """x[offset + j] = s * a[first + j] for j below `length`, a multiple of a lane; `x` may be `a`."""

        def generate(context, builder, signature, arguments):
            target, size = _data(context, builder, signature.args[0], arguments[0])
            source, _ = _data(context, builder, signature.args[2], arguments[2])
            target, source = builder.gep(target, [arguments[1]]), builder.gep(source, [arguments[3]])
            lane = ir.VectorType(target.type.pointee, LANE_BYTES // size)
            factor, vector = _splat(builder, arguments[5], lane), lane.as_pointer()
            with cgutils.for_range_slice(builder, _INDEX(0), arguments[4], _INDEX(lane.count), _INDEX) as (j, _):
                value = builder.load(builder.bitcast(builder.gep(source, [j]), vector), align=size)
                place = builder.bitcast(builder.gep(target, [j]), vector)
                builder.store(builder.fmul(factor, value), place, align=size)
            return context.get_dummy_value()

        return types.void(x, types.intp, a, types.intp, types.intp, x.dtype), generate

    return signed_copy


def _make_add(flags):
    if config.DISABLE_JIT:

        def add_runs(x, places, signs, a, first, length):
            for place, s in zip(places, signs, strict=True):
                x[place : place + length] += s * a[first : first + length]

        return add_runs

    @intrinsic
    def add_runs(typingctx, x, places, signs, a, first, length):
        """x[place + j] += s * a[first + j] for each (place, s) of the two tuples and j below `length`.

        The run of `a` is loaded once for all places, which may coincide but not overlap otherwise.
        """

        def generate(context, builder, signature, arguments):
            target, size = _data(context, builder, signature.args[0], arguments[0])
            source, _ = _data(context, builder, signature.args[3], arguments[3])
            source = builder.gep(source, [arguments[4]])
            n_places = len(signature.args[1])
            runs = [builder.gep(target, [builder.extract_value(arguments[1], t)]) for t in range(n_places)]
            scalars = [builder.extract_value(arguments[2], t) for t in range(n_places)]
            lane = ir.VectorType(target.type.pointee, LANE_BYTES // size)
            whole = builder.sub(arguments[5], builder.srem(arguments[5], _INDEX(lane.count)))

            def add(start, stop, factors, step, pointer):
                with cgutils.for_range_slice(builder, start, stop, _INDEX(step), _INDEX) as (j, _):
                    value = builder.load(builder.bitcast(builder.gep(source, [j]), pointer), align=size)
                    for run, factor in zip(runs, factors, strict=True):
                        place = builder.bitcast(builder.gep(run, [j]), pointer)
                        product = builder.fmul(factor, value, flags=flags)
                        total = builder.fadd(builder.load(place, align=size), product, flags=flags)
                        builder.store(total, place, align=size)

            vectors = [_splat(builder, s, lane) for s in scalars]
            add(_INDEX(0), whole, vectors, lane.count, lane.as_pointer())
            add(whole, arguments[5], scalars, 1, target.type.pointee.as_pointer())
            return context.get_dummy_value()

        return types.void(x, places, signs, a, types.intp, types.intp), generate

    return add_runs


signed_copy = _make_signed_copy()
signed_add = _make_add(())  # the factors are signs, so the products are exact
scaled_add = _make_add(_FUSED)


def _ask(builder, address, for_writing=False):
    """Emit a prefetch hint for the cache line of an address: keep it in all caches, as data."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _WORD, _WORD, _WORD])
    hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(hint, [builder.bitcast(address, byte), _WORD(int(for_writing)), _WORD(3), _WORD(1)])


def _hint(for_writing: bool):
    if config.DISABLE_JIT:
        return lambda array, index: None  # noqa: ARG005  # there is nothing to hint in interpreted code

    @intrinsic
    def prefetch(typingctx, array, index):
        """Ask for the cache line of ``array[index]`` of a contiguous vector; never faults, changes nothing."""

        def generate(context, builder, signature, arguments):
            start, _ = _data(context, builder, signature.args[0], arguments[0])
            _ask(builder, builder.gep(start, [arguments[1]]), for_writing)
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return prefetch


prefetch_read, prefetch_write = _hint(False), _hint(True)


def _halves(builder, value):
    """The lower and the upper half of a vector."""
    count, nothing = value.type.count, ir.Constant(value.type, ir.Undefined)

    def part(first):
        mask = ir.Constant(ir.VectorType(_WORD, count // 2), list(range(first, first + count // 2)))
        return builder.shuffle_vector(value, nothing, mask)

    return part(0), part(count // 2)


def _load(builder, start, index, kind, size):
    """The vector (or number) of type `kind` that begins at ``start[index]``."""
    return builder.load(builder.bitcast(builder.gep(start, [index]), kind.as_pointer()), align=size)


DEPTH = 2  # vectors of partial sums to a row: with two rows or more the chains of additions hide their latency


def _make_dots():
    if config.DISABLE_JIT:

        def dot_rows(a, places, x, length):
            return tuple(x.dtype.type((a[place : place + length] * x[:length]).sum()) for place in places)

        return dot_rows

    @intrinsic
    def dot_rows(typingctx, a, places, x, length):
        """The sums of a[place + j] * x[j] over j below `length`, for each place of the tuple.

        The order of a sum depends on `length` only: DEPTH vectors of partial sums, folded in halves.
        """

        def generate(context, builder, signature, arguments):
            source, size = _data(context, builder, signature.args[0], arguments[0])
            vector, _ = _data(context, builder, signature.args[2], arguments[2])
            rows = [builder.gep(source, [place]) for place in cgutils.unpack_tuple(builder, arguments[1])]
            lane, n = ir.VectorType(source.type.pointee, LANE_BYTES // size), arguments[3]
            zero = ir.Constant(lane, [0.0] * lane.count)
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(DEPTH)] for _ in rows]

            def step(j, level):
                value = _load(builder, vector, j, lane, size)
                for row, total in zip(rows, sums, strict=True):
                    product = builder.fmul(_load(builder, row, j, lane, size), value, flags=_FUSED)
                    builder.store(builder.fadd(builder.load(total[level]), product, flags=_FUSED), total[level])

            deep = _INDEX(DEPTH * lane.count)
            main = builder.sub(n, builder.srem(n, deep))
            with cgutils.for_range_slice(builder, _INDEX(0), main, deep, _INDEX) as (j, _):
                for level in range(DEPTH):
                    step(builder.add(j, _INDEX(level * lane.count)), level)
            whole = builder.sub(n, builder.srem(n, _INDEX(lane.count)))
            with cgutils.for_range_slice(builder, main, whole, _INDEX(lane.count), _INDEX) as (j, _):
                step(j, 0)
            totals = []
            for total in sums:
                values = [builder.load(place) for place in total]
                while len(values) > 1:
                    values = [builder.fadd(p, q) for p, q in zip(values[::2], values[1::2], strict=True)]
                totals.append(values[0])
            totals = _fold_tail(builder, rows, vector, totals, whole, n, size)
            return context.make_tuple(builder, signature.return_type, totals)

        return types.UniTuple(a.dtype, len(places))(a, places, x, types.intp), generate

    return dot_rows


def _fold_tail(builder, rows, vector, totals, j, n, size):
    """Fold vectors of partial sums to numbers; each half on the way takes the part of the tail that it fits."""
    count, real = totals[0].type.count // 2, totals[0].type.element
    while count >= 1:
        halves = [_halves(builder, total) for total in totals]
        totals = [builder.fadd(low, high) for low, high in halves]
        kind = ir.VectorType(real, count)
        before, present = builder.block, builder.icmp_signed("!=", builder.and_(n, _INDEX(count)), _INDEX(0))
        with builder.if_then(present):
            value, longer = _load(builder, vector, j, kind, size), []
            for row, total in zip(rows, totals, strict=True):
                product = builder.fmul(_load(builder, row, j, kind, size), value, flags=_FUSED)
                longer.append(builder.fadd(total, product, flags=_FUSED))
            inside, after = builder.block, builder.add(j, _INDEX(count))
        merged = []
        for total, more in zip([*totals, j], [*longer, after], strict=True):
            phi = builder.phi(total.type)
            phi.add_incoming(total, before)
            phi.add_incoming(more, inside)
            merged.append(phi)
        totals, j, count = merged[:-1], merged[-1], count // 2
    return [builder.extract_element(total, _WORD(0)) for total in totals]


def _make_sum():
    if config.DISABLE_JIT:

        def add_rows(x, a, places, factors, length, ahead):
            for place, factor in zip(places, factors, strict=True):
                x[:length] += factor * a[place : place + length]

        return add_rows

    @intrinsic
    def add_rows(typingctx, x, a, places, factors, length, ahead):
        """x[j] += the sum of factor * a[place + j] over the tuples of places and factors, for j below `length`.

        Unless `ahead` is None, what lies that far behind each entry is asked for: memory would be idle meanwhile.
        """

        def generate(context, builder, signature, arguments):
            target, size = _data(context, builder, signature.args[0], arguments[0])
            source, _ = _data(context, builder, signature.args[1], arguments[1])
            starts = [builder.gep(source, [place]) for place in cgutils.unpack_tuple(builder, arguments[2])]
            scalars = cgutils.unpack_tuple(builder, arguments[3])
            hints = [] if ahead == types.none else [builder.gep(start, [arguments[5]]) for start in starts]
            real, n = source.type.pointee, arguments[4]
            lane = ir.VectorType(real, LANE_BYTES // size)
            whole = builder.sub(n, builder.srem(n, _INDEX(lane.count)))

            def add(start, stop, factors, kind, step, hints=()):
                with cgutils.for_range_slice(builder, start, stop, _INDEX(step), _INDEX) as (j, _):
                    for hint in hints:
                        _ask(builder, builder.gep(hint, [j]))
                    total = _load(builder, target, j, kind, size)
                    for row, factor in zip(starts, factors, strict=True):
                        product = builder.fmul(factor, _load(builder, row, j, kind, size), flags=_FUSED)
                        total = builder.fadd(total, product, flags=_FUSED)
                    place = builder.bitcast(builder.gep(target, [j]), kind.as_pointer())
                    builder.store(total, place, align=size)

            add(_INDEX(0), whole, [_splat(builder, s, lane) for s in scalars], lane, lane.count, hints)
            while lane.count > 2:
                lane = ir.VectorType(real, lane.count // 2)
                stop = builder.sub(n, builder.srem(n, _INDEX(lane.count)))
                add(whole, stop, [_splat(builder, s, lane) for s in scalars], lane, lane.count)
                whole = stop
            add(whole, n, scalars, real, 1)
            return context.get_dummy_value()

        return types.void(x, a, places, factors, types.intp, ahead), generate

    return add_rows


dot_rows, add_rows = _make_dots(), _make_sum()


HEIGHT = 8  # rows of a tile: with one vector of columns, as many sums under way as hide the latency of an addition


def _make_tile(width):
    if config.DISABLE_JIT:

        def outer_tile(out, place, stride, left, a, step, right, b, other, n):
            for r in range(HEIGHT):
                x = left[a + r : a + r + (n - 1) * step + 1 : step]
                for c in range(8 * width):
                    y = right[b + c : b + c + (n - 1) * other + 1 : other]
                    out[place + r * stride + c] += (x * y).sum()

        return outer_tile

    @intrinsic
    def outer_tile(typingctx, out, place, stride, left, a, step, right, b, other, n):
        """out[place + r stride + c] += the sum over p < n of left[a + p step + r] * right[b + p other + c].

        For r below HEIGHT and c below 8 times `width`; all arrays are of doubles, and the sums stay in registers.
        """

        def generate(context, builder, signature, arguments):
            target, size = _data(context, builder, signature.args[0], arguments[0])
            rows, _ = _data(context, builder, signature.args[3], arguments[3])
            columns, _ = _data(context, builder, signature.args[6], arguments[6])
            _, first, stride, _, left_first, step, _, right_first, other, n = arguments
            lane = ir.VectorType(target.type.pointee, LANE_BYTES // size)
            zero = ir.Constant(lane, [0.0] * lane.count)
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(width)] for _ in range(HEIGHT)]
            with cgutils.for_range_slice(builder, _INDEX(0), n, _INDEX(1), _INDEX) as (p, _):
                x = builder.add(left_first, builder.mul(p, step))
                y = builder.add(right_first, builder.mul(p, other))
                values = [
                    _load(builder, columns, builder.add(y, _INDEX(c * lane.count)), lane, size) for c in range(width)
                ]
                for r in range(HEIGHT):
                    number = builder.load(builder.gep(rows, [builder.add(x, _INDEX(r))]))
                    factor = _splat(builder, number, lane)
                    for c in range(width):
                        product = builder.fmul(factor, values[c], flags=_FUSED)
                        builder.store(builder.fadd(builder.load(sums[r][c]), product, flags=_FUSED), sums[r][c])
            for r in range(HEIGHT):
                for c in range(width):
                    index = builder.add(first, builder.add(builder.mul(stride, _INDEX(r)), _INDEX(c * lane.count)))
                    spot = builder.bitcast(builder.gep(target, [index]), lane.as_pointer())
                    total = builder.fadd(builder.load(spot, align=size), builder.load(sums[r][c]))
                    builder.store(total, spot, align=size)
            return context.get_dummy_value()

        index = types.intp
        return types.void(out, index, index, left, index, index, right, index, index, index), generate

    return outer_tile


outer_tile, outer_tile_pair = _make_tile(1), _make_tile(2)


def _folded(builder, value):
    """The sum of the elements of a vector, by halves."""
    while value.type.count > 1:
        low, high = _halves(builder, value)
        if low.type.count == 1:
            low, high = (builder.extract_element(part, _WORD(0)) for part in (low, high))
            return builder.fadd(low, high)
        value = builder.fadd(low, high)
    return builder.extract_element(value, _WORD(0))


def _make_log_sums():
    if config.DISABLE_JIT:

        def log_sums(w, before, step, place, x, y, n):
            y[:n] += step * w[before : before + n]
            ratio, row = x[:n] / y[:n], w[place : place + n]
            return (row * ratio).sum(), (row * row * ratio / y[:n]).sum()

        return log_sums

    @intrinsic
    def log_sums(typingctx, w, before, step, place, x, y, n):
        """y += step * w[before:], then the sums of w x / y and w^2 x / y^2 with w[place:], over n, whole cache lines.

        All are of doubles: the slope and the curvature of a sum of x log y along w.
        """

        def generate(context, builder, signature, arguments):
            rows, size = _data(context, builder, signature.args[0], arguments[0])
            _, before, step, place, _, _, n = arguments
            data, _ = _data(context, builder, signature.args[4], arguments[4])
            model, _ = _data(context, builder, signature.args[5], arguments[5])
            real = rows.type.pointee
            lane = ir.VectorType(real, LANE_BYTES // size)
            zero, one = ir.Constant(lane, [0.0] * lane.count), ir.Constant(lane, [1.0] * lane.count)
            slope, curvature = (cgutils.alloca_once_value(builder, zero) for _ in range(2))
            factor = _splat(builder, step, lane)
            with cgutils.for_range_slice(builder, _INDEX(0), n, _INDEX(lane.count), _INDEX) as (p, _):
                moved = builder.fmul(factor, _load(builder, rows, builder.add(before, p), lane, size), flags=_FUSED)
                value = builder.fadd(_load(builder, model, p, lane, size), moved, flags=_FUSED)
                builder.store(value, builder.bitcast(builder.gep(model, [p]), lane.as_pointer()), align=size)
                inverse = builder.fdiv(one, value)
                ratio = builder.fmul(_load(builder, data, p, lane, size), inverse)
                row = _load(builder, rows, builder.add(place, p), lane, size)
                first = builder.fmul(row, ratio)
                builder.store(builder.fadd(builder.load(slope), first), slope)
                second = builder.fmul(first, builder.fmul(row, inverse), flags=_FUSED)
                builder.store(builder.fadd(builder.load(curvature), second, flags=_FUSED), curvature)
            sums = [_folded(builder, builder.load(place)) for place in (slope, curvature)]
            return context.make_tuple(builder, signature.return_type, sums)

        kinds = w, types.intp, types.float64, types.intp, x, y, types.intp
        return types.UniTuple(types.float64, 2)(*kinds), generate

    return log_sums


log_sums = _make_log_sums()
