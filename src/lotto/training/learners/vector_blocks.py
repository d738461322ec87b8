"""Blocks of sums that stay in registers, for compiled functions; a compiler does not find them by itself from loops.

They are written in LLVM's own instructions, over addresses of float32 numbers.

Importing this module needs numba.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Numbers in a vector; processors with narrower ones take two or four for each."""
WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
"""Whether there are 32 registers for whole vectors."""
VECTORS = 4 if WIDE else 1
"""Vectors of a block: four outputs of so many are as many sums as fit into the registers."""

_ROW = ir.VectorType(ir.FloatType(), LANES)
_LONG, _NUMBER = ir.IntType(64), ir.FloatType()
_FUSED = ("contract", "reassoc", "nsz")
_ADDRESS = types.uint64


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, address: Any, kind: Any) -> Any:
    found = builder.load(_at(builder, address, kind))
    found.align = 4 if kind is not _LONG else 8
    return found


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, _at(builder, address, value.type)).align = 4


def _plus(builder: Any, address: Any, numbers: int) -> Any:
    return builder.add(address, ir.Constant(_LONG, 4 * numbers))


def _repeated(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(_ROW, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        one, ir.Constant(_ROW, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


class _Sums:
    """Vectors that a loop adds to."""

    def __init__(self, builder: Any, count: int) -> None:
        self.builder = builder
        zero = ir.Constant(_ROW, [0.0] * LANES)
        self.places = [cgutils.alloca_once_value(builder, zero) for _ in range(count)]
        for place in self.places:
            builder.store(zero, place)

    def add(self, i: int, left: Any, right: Any) -> None:
        product = self.builder.fmul(left, right, flags=_FUSED)
        self.builder.store(self.builder.fadd(self.builder.load(self.places[i]), product, flags=_FUSED), self.places[i])

    def __getitem__(self, i: int) -> Any:
        return self.builder.load(self.places[i])


def _summing(outputs: int, vectors: int) -> Any:
    """A block of a convolution: so many outputs of so many vectors, see `_sum_body`."""

    def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        x, offsets, weights, count, out, stride, more = given
        sums = _Sums(builder, outputs * vectors)
        with cgutils.for_range(builder, count) as loop:
            offset = _load(builder, builder.add(offsets, builder.mul(loop.index, ir.Constant(_LONG, 8))), _LONG)
            place = builder.add(x, builder.mul(offset, ir.Constant(_LONG, 4)))
            row = builder.add(weights, builder.mul(loop.index, ir.Constant(_LONG, 4 * outputs)))
            inputs = [_load(builder, _plus(builder, place, LANES * v), _ROW) for v in range(vectors)]
            for o in range(outputs):
                weight = _repeated(builder, _load(builder, _plus(builder, row, o), _NUMBER))
                for v in range(vectors):
                    sums.add(o * vectors + v, weight, inputs[v])
        places = []
        for o in range(outputs):
            start = builder.add(out, builder.mul(stride, ir.Constant(_LONG, 4 * o)))
            places += [_plus(builder, start, LANES * v) for v in range(vectors)]
        with builder.if_else(builder.trunc(more, ir.IntType(1))) as (then, otherwise):
            with then:
                for i, place in enumerate(places):
                    _store(builder, builder.fadd(_load(builder, place, _ROW), sums[i], flags=_FUSED), place)
            with otherwise:
                for i, place in enumerate(places):
                    _store(builder, sums[i], place)
        return context.get_dummy_value()

    def typed(context: Any, x: Any, offsets: Any, weights: Any, count: Any, out: Any, stride: Any, more: Any) -> Any:
        return types.void(_ADDRESS, _ADDRESS, _ADDRESS, types.int64, _ADDRESS, types.int64, types.int64), codegen

    return intrinsic(typed)


def _multiplying(outputs: int, inputs: int) -> Any:
    """A block of a weight gradient: products of so many outputs' and inputs' rows, summed up over the batch."""

    def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        g, stride, x, offsets, places, vectors, g_step, x_step, out = given
        sums = _Sums(builder, outputs * inputs)
        step = [builder.mul(s, ir.Constant(_LONG, 4)) for s in (g_step, x_step)]
        starts = [builder.mul(stride, ir.Constant(_LONG, 4 * o)) for o in range(outputs)]
        rows = [
            builder.mul(_load(builder, builder.add(offsets, ir.Constant(_LONG, 8 * i)), _LONG), ir.Constant(_LONG, 4))
            for i in range(inputs)
        ]
        with cgutils.for_range(builder, places) as outer:
            g_place = builder.add(g, builder.mul(outer.index, step[0]))
            x_place = builder.add(x, builder.mul(outer.index, step[1]))
            with cgutils.for_range(builder, vectors) as inner:
                at = builder.mul(inner.index, ir.Constant(_LONG, 4 * LANES))
                left = [_load(builder, builder.add(builder.add(g_place, s), at), _ROW) for s in starts]
                right = [_load(builder, builder.add(builder.add(x_place, r), at), _ROW) for r in rows]
                for o in range(outputs):
                    for i in range(inputs):
                        sums.add(i * outputs + o, left[o], right[i])
        kind = ir.FunctionType(_NUMBER, [_NUMBER, _ROW])
        total = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
        for i in range(outputs * inputs):
            place = _plus(builder, out, i)
            found = builder.call(total, [ir.Constant(_NUMBER, 0.0), sums[i]], fastmath=_FUSED)
            _store(builder, builder.fadd(_load(builder, place, _NUMBER), found, flags=_FUSED), place)
        return context.get_dummy_value()

    def typed(
        context: Any, g: Any, stride: Any, x: Any, offsets: Any, places: Any, vectors: Any, g_step: Any, x_step: Any,
        out: Any,
    ) -> Any:  # fmt: skip
        whole = types.int64
        return types.void(_ADDRESS, whole, _ADDRESS, _ADDRESS, whole, whole, whole, whole, _ADDRESS), codegen

    return intrinsic(typed)


WIDTH = 8 if WIDE else 4
"""Vectors of a block of one output."""
sum_four, sum_four_narrow = _summing(4, VECTORS), _summing(4, 1)
sum_one, sum_one_narrow = _summing(1, WIDTH), _summing(1, 1)
multiply_four, multiply_one = _multiplying(4, 4), _multiplying(1, 4)
