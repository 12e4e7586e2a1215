"""A prefetch hint for Numba: rows that an index array names are known long before they are read."""

from __future__ import annotations

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic


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
