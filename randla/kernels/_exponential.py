"""exp(x) for x <= 0 over a run of numbers, in a form that LLVM vectorises.

2**k times a Taylor sum on |r| <= log(2) / 2.  The library's exp is called once for each number, at a third of the
numbers a second or less.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic, overload

from ._compile import compiled

ROUND_64, ROUND_32 = 6755399441055744.0, np.float32(12582912.0)  # 1.5 * 2**52 (2**23): adding it rounds to an integer
LOG2E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # log(2) in two parts: k times the first is exact
LN2_HIGH_32, LN2_LOW_32 = np.float32(0.693359375), np.float32(-2.12194440e-4)
LEAST_64, LEAST_32 = -708.0, np.float32(-87.0)  # below, e**LEAST is returned: about the least normal number

if config.DISABLE_JIT:

    def bits_of(value):
        """The bits of a float64 or float32 as a signed integer of the same width."""
        return value.view(np.int64 if value.itemsize == 8 else np.int32)

    def number_of(bits):
        """The float64 or float32 that has these bits."""
        return bits.view(np.float64 if bits.itemsize == 8 else np.float32)

else:

    @intrinsic
    def bits_of(typingctx, value):
        """The bits of a float64 or float32 as a signed integer of the same width."""
        wide = value is types.float64

        def generate(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], ir.IntType(64 if wide else 32))

        return (types.int64 if wide else types.int32)(value), generate

    @intrinsic
    def number_of(typingctx, bits):
        """The float64 or float32 that has these bits."""
        wide = bits is types.int64

        def generate(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], ir.DoubleType() if wide else ir.FloatType())

        return (types.float64 if wide else types.float32)(bits), generate


# contract: a fused multiply-add rounds once instead of twice
@compiled(fastmath={"contract"})
def exponentials_64(x, lo, hi):
    """x[j] = exp(x[j]) for float64 x[j] <= 0 and lo <= j < hi, relative error 3e-16."""
    run = x[lo:hi]
    for j in range(run.size):
        value = LEAST_64 if run[j] < LEAST_64 else run[j]  # NaN stays
        shifted = value * LOG2E + ROUND_64
        k = shifted - ROUND_64
        r = (value - k * LN2_HIGH) - k * LN2_LOW
        p = 1 / 479001600.0
        p = p * r + 1 / 39916800.0
        p = p * r + 1 / 3628800.0
        p = p * r + 1 / 362880.0
        p = p * r + 1 / 40320.0
        p = p * r + 1 / 5040.0
        p = p * r + 1 / 720.0
        p = p * r + 1 / 120.0
        p = p * r + 1 / 24.0
        p = p * r + 1 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        p = p * r + 1.0
        run[j] = number_of(bits_of(p) + (bits_of(shifted) << np.int64(52)))


@compiled(fastmath={"contract"})
def exponentials_32(x, lo, hi):
    """`exponentials_64` for float32, relative error 3e-7."""
    run = x[lo:hi]
    for j in range(run.size):
        value = LEAST_32 if run[j] < LEAST_32 else run[j]
        shifted = value * np.float32(LOG2E) + ROUND_32
        k = shifted - ROUND_32
        r = (value - k * LN2_HIGH_32) - k * LN2_LOW_32
        p = np.float32(1 / 5040.0)
        p = p * r + np.float32(1 / 720.0)
        p = p * r + np.float32(1 / 120.0)
        p = p * r + np.float32(1 / 24.0)
        p = p * r + np.float32(1 / 6.0)
        p = p * r + np.float32(0.5)
        p = p * r + np.float32(1.0)
        p = p * r + np.float32(1.0)
        run[j] = number_of(np.int32(bits_of(p) + (bits_of(shifted) << np.int32(23))))


def exponentials(x, lo, hi):
    """`exponentials_64` or `exponentials_32`, by the type of x."""
    (exponentials_32 if x.dtype == np.float32 else exponentials_64)(x, lo, hi)


@overload(exponentials)
def _exponentials(x, lo, hi):
    if x.dtype is types.float32:
        return lambda x, lo, hi: exponentials_32(x, lo, hi)
    return lambda x, lo, hi: exponentials_64(x, lo, hi)
