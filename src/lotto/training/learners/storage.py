"""How activations lie in memory: as float32, or as bfloat16, of which half as many bytes are moved.

A bfloat16 is the upper half of a float32. Compiled functions see such memory as whole numbers of 16 bits; they compute
in float32, and what they write is rounded to the nearest, of two equally near ones to the even. A processor's own NaN
stays.

Importing this module needs numba.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

BYTES = 64
"""Of a vector: 16 numbers in float32, 32 in bfloat16."""

_BITS = ir.IntType(32)


def is_half(memory: Any) -> bool:
    """Whether a compiled function's memory, as its type says, is of bfloat16."""
    return bool(memory.dtype == types.uint16)


def _reading(context: Any, row: Any, i: Any) -> Any:
    """``row[i]`` as a float32; see `number`."""

    def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        found = builder.load(_place(context, builder, signature.args[0], given))
        if not is_half(row):
            return found
        bits = builder.shl(builder.zext(found, _BITS), ir.Constant(_BITS, 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(row, types.intp), codegen


def _writing(context: Any, row: Any, i: Any, value: Any) -> Any:
    """``row[i] = value``, rounded as the memory is; see `put`."""

    def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        value = given[2]
        if is_half(row):
            rounded = rounded_bits(builder, value, _BITS, 1)
            value = builder.trunc(builder.lshr(rounded, ir.Constant(_BITS, 16)), ir.IntType(16))
        builder.store(value, _place(context, builder, signature.args[0], given))
        return context.get_dummy_value()

    return types.void(row, types.intp, types.float32), codegen


def rounded_bits(builder: Any, number: Any, kind: Any, count: int) -> Any:
    """The bits of float32, of which the upper half is the nearest bfloat16: of one number, or of a vector of ``count``.

    ``kind`` is LLVM's type of the bits.
    """

    def constant(value: int) -> Any:
        return ir.Constant(kind, value if count == 1 else [value] * count)

    bits = builder.bitcast(number, kind)
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    return builder.add(bits, builder.add(odd, constant(0x7FFF)))


def _place(context: Any, builder: Any, kind: Any, given: Any) -> Any:
    """The address of a number; rows are contiguous."""
    assert kind.ndim == 1
    assert kind.layout == "C"
    return builder.gep(make_array(kind)(context, builder, given[0]).data, [given[1]])


def _counting(context: Any, memory: Any) -> Any:
    """Numbers of a vector; see `lanes`."""

    def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return ir.Constant(ir.IntType(64), 32 if is_half(memory) else 16)

    return types.int64(memory), codegen


number: Any = intrinsic(_reading)
"""``number(row, i)`` in compiled functions: ``row[i]`` as a float32."""
put: Any = intrinsic(_writing)
"""``put(row, i, value)`` in compiled functions: ``row[i] = value``, rounded as the memory is."""
lanes: Any = intrinsic(_counting)
"""``lanes(memory)`` in compiled functions: numbers of a vector."""
