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
    def butterfly(typingctx, x, offset, length):  # noqa: ARG001  # the signature that Numba calls
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
    def signed_copy(typingctx, x, offset, a, first, length, s):  # noqa: ARG001  # the signature that Numba calls
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
    def add_runs(typingctx, x, places, signs, a, first, length):  # noqa: ARG001  # the signature that Numba calls
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
scaled_add = _make_add(("contract",))  # a fused multiply-add rounds once instead of twice


def _hint(for_writing: bool):
    if config.DISABLE_JIT:
        return lambda array, index: None  # noqa: ARG005  # there is nothing to hint in interpreted code

    @intrinsic
    def prefetch(typingctx, array, index):  # noqa: ARG001  # the signature that Numba calls
        """Ask for the cache line of ``array[index]`` of a contiguous vector; never faults, changes nothing."""

        def generate(context, builder, signature, arguments):
            view = context.make_array(signature.args[0])(context, builder, arguments[0])
            byte = ir.IntType(8).as_pointer()
            address = builder.bitcast(builder.gep(view.data, [arguments[1]]), byte)
            word = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(hint, [address, word(int(for_writing)), word(3), word(1)])  # keep in all caches, data
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return prefetch


prefetch_read, prefetch_write = _hint(False), _hint(True)
