"""Walsh-Hadamard butterflies and signed copies as vector instructions.

Written out in LLVM's vector types, because a loop over eight slices of one array is never vectorised: the compiler
can't tell that they don't overlap.
"""

from __future__ import annotations

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

LANE_BYTES = 64  # one cache line: eight doubles or sixteen floats at a time

_INDEX = ir.IntType(64)


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
                    builder.bitcast(builder.gep(first, [builder.add(j, builder.mul(run, _INDEX(q)))]), lane.as_pointer())
                    for q in range(radix)
                ]
                values = [builder.load(place, align=size) for place in places]
                for place, value in zip(places, _stages(builder, values), strict=True):
                    builder.store(value, place, align=size)
            return context.get_dummy_value()

        return types.void(x, types.intp, types.intp), generate

    return butterfly


butterfly_2, butterfly_4, butterfly_8 = _butterfly(2), _butterfly(4), _butterfly(8)


def _make_signed_copy():
    if config.DISABLE_JIT:

        def signed_copy(x, offset, a, first, length, s):
            x[offset : offset + length] = s * a[first : first + length]

        return signed_copy

    @intrinsic
    def signed_copy(typingctx, x, offset, a, first, length, s):  # noqa: ARG001  # the signature that Numba calls
        """x[offset + j] = s * a[first + j] for j below `length`, a multiple of a lane; `x` may be `a`."""

        def generate(context, builder, signature, arguments):
            target = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            source = context.make_array(signature.args[2])(context, builder, arguments[2]).data
            size = context.get_abi_sizeof(target.type.pointee)
            lane = ir.VectorType(target.type.pointee, LANE_BYTES // size)
            word = ir.IntType(32)
            one = builder.insert_element(ir.Constant(lane, ir.Undefined), arguments[5], word(0))
            zeros = ir.Constant(ir.VectorType(word, lane.count), [0] * lane.count)
            factor = builder.shuffle_vector(one, ir.Constant(lane, ir.Undefined), zeros)
            target, source = builder.gep(target, [arguments[1]]), builder.gep(source, [arguments[3]])
            with cgutils.for_range_slice(builder, _INDEX(0), arguments[4], _INDEX(lane.count), _INDEX) as (j, _):
                value = builder.load(builder.bitcast(builder.gep(source, [j]), lane.as_pointer()), align=size)
                place = builder.bitcast(builder.gep(target, [j]), lane.as_pointer())
                builder.store(builder.fmul(factor, value), place, align=size)
            return context.get_dummy_value()

        return types.void(x, types.intp, a, types.intp, types.intp, x.dtype), generate

    return signed_copy


signed_copy = _make_signed_copy()
