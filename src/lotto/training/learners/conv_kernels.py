"""Convolutions of activations that lie channel × height × width × batch: compiled loops over contiguous rows.

Both kernels keep their sums in registers, which a compiler does not find by itself from loops, so their innermost part
is written in LLVM's own instructions. A convolution is given by a list of offsets: where in the inputs each weight's
number lies, seen from an output's place. The input gradient is the same with the list turned around, and a sparse layer
is the same with a list of its unpruned weights.

Importing this module needs numba.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lotto.core.jit import jit

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


CHUNK = 64
"""Vectors of a row that are gone through at a time, so that several rows fit into the nearest memory."""
WIDTH = 8 if WIDE else 4
"""Vectors of a block of one output, inputs of a block of one output's weight gradient."""
_four, _four_narrow = _summing(4, VECTORS), _summing(4, 1)
_one, _one_narrow = _summing(1, WIDTH), _summing(1, 1)
_four_by_four, _one_by_four = _multiplying(4, 4), _multiplying(1, 4)


@jit
def correlate(x, out, weights, offsets, begins, ends, rows, geometry, more):  # type: ignore[no-untyped-def]
    """Sums of weights times inputs, for every place of every output.

    Args:
        x, out: float32 memory of the inputs and the outputs.
        weights: packed, ``rows`` for each entry of ``offsets``.
        offsets: where an input lies, from an output's place.
        begins, ends: which offsets a block of ``rows`` outputs has.
        rows: outputs of a block, 1 or 4.
        geometry: see `Geometry`.
        more: whether sums are added to what is in ``out``.
    """
    height, width, vectors, x_start, x_row, x_column, out_start, out_row, out_column, channel = geometry
    from_, to, number = x.ctypes.data, out.ctypes.data, np.int64(more)
    list_, packed = offsets.ctypes.data, weights.ctypes.data
    blocks, at_once = len(begins), VECTORS if rows == 4 else WIDTH
    for h in range(height):
        for w in range(width):
            x_place = from_ + 4 * (x_start + h * x_row + w * x_column)
            out_place = to + 4 * (out_start + h * out_row + w * out_column)
            v = 0
            while v < vectors:
                wide = v + at_once <= vectors
                for b in range(blocks):
                    begin, count = begins[b], ends[b] - begins[b]
                    a = np.uint64(x_place + 64 * v)
                    z = np.uint64(out_place + 64 * v + 4 * b * rows * channel)
                    o, p = np.uint64(list_ + 8 * begin), np.uint64(packed + 4 * rows * begin)
                    if rows == 4:
                        if wide:
                            _four(a, o, p, count, z, channel, number)
                        else:
                            _four_narrow(a, o, p, count, z, channel, number)
                    elif wide:
                        _one(a, o, p, count, z, channel, number)
                    else:
                        _one_narrow(a, o, p, count, z, channel, number)
                v += at_once if wide else 1


@jit
def products(x, g, found, offsets, begins, ends, rows, geometry):  # type: ignore[no-untyped-def]
    """Weight gradients, packed as the weights: for each a sum over places and batch of output gradient times input.

    Args:
        x: float32 memory of the inputs.
        g: that of the outputs' gradients.
        found: where sums are written; offsets come in fours, of which the last may be repeated.
        offsets, begins, ends, rows: see `correlate`.
        geometry: see there, with ``g`` as the outputs.
    """
    height, width, vectors, x_start, x_row, x_column, g_start, g_row, g_column, channel = geometry
    x_memory, g_memory, list_, to = x.ctypes.data, g.ctypes.data, offsets.ctypes.data, found.ctypes.data
    found[:] = 0
    chunk = max(1, CHUNK // vectors)
    for h in range(height):
        for first in range(0, width, chunk):
            places = min(chunk, width - first)
            x_place = np.uint64(x_memory + 4 * (x_start + h * x_row + first * x_column))
            g_place = g_memory + 4 * (g_start + h * g_row + first * g_column)
            for b in range(len(begins)):
                block = np.uint64(g_place + 4 * b * rows * channel)
                for k in range(begins[b], ends[b], 4):
                    o, z = np.uint64(list_ + 8 * k), np.uint64(to + 4 * rows * k)
                    if rows == 4:
                        _four_by_four(block, channel, x_place, o, places, vectors, g_column, x_column, z)
                    else:
                        _one_by_four(block, channel, x_place, o, places, vectors, g_column, x_column, z)


@jit
def pack(weights, places, packed):  # type: ignore[no-untyped-def]
    """``packed[i] = weights[places[i]]``, 0 where the place is -1."""
    for i in range(len(places)):
        packed[i] = weights[places[i]] if places[i] >= 0 else np.float32(0)


@jit
def unpack(packed, places, weights):  # type: ignore[no-untyped-def]
    """``weights[places[i]] = packed[i]``, but for places -1."""
    for i in range(len(places)):
        if places[i] >= 0:
            weights[places[i]] = packed[i]
