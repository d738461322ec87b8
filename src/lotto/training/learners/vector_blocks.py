"""Blocks of sums that stay in registers, for compiled functions; a compiler does not find them by itself from loops.

They are written in LLVM's own instructions, over addresses of vectors of 64 bytes: 16 numbers in float32, or 32 in
bfloat16 (see `storage`), which are two vectors of float32, that of the even and that of the odd ones. Sums are float32.

Importing this module needs numba.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lotto.training.learners.storage import is_half, rounded_bits

LANES = 16
"""Numbers in a vector of float32; processors with narrower ones take two or four for each."""
WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
"""Whether there are 32 registers for whole vectors."""
PAIRS = WIDE and bool(llvmlite.binding.get_host_cpu_features().get("avx512bf16"))
"""Whether the processor multiplies bfloat16 in pairs, and rounds to it."""
VECTORS = 4 if WIDE else 1
"""Vectors of float32 of a block: four outputs of so many are as many sums as fit into the registers."""
WIDTH = 8 if WIDE else 4
"""The same of a block of one output."""

_ROW = ir.VectorType(ir.FloatType(), LANES)
_LONG, _NUMBER, _BITS = ir.IntType(64), ir.FloatType(), ir.VectorType(ir.IntType(32), LANES)
_SHORTS = ir.VectorType(ir.IntType(16), 2 * LANES)
_FUSED = ("contract", "reassoc", "nsz")
_ADDRESS = types.uint64


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, address: Any, kind: Any) -> Any:
    found = builder.load(_at(builder, address, kind))
    found.align = 8 if kind is _LONG else 2 if kind is _BITS else 4
    return found


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, _at(builder, address, value.type)).align = 4 if value.type is _ROW else 2


def _plus(builder: Any, address: Any, bytes_: int) -> Any:
    return builder.add(address, ir.Constant(_LONG, bytes_))


def _times(builder: Any, number: Any, by: int) -> Any:
    return builder.mul(number, ir.Constant(_LONG, by))


def _repeated(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(_ROW, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        one, ir.Constant(_ROW, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


class _BFloat(ir.Type):
    """LLVM's type of a bfloat16 number, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_HALVES = ir.VectorType(_BFloat(), 2 * LANES)


def _bits(number: int) -> Any:
    return ir.Constant(_BITS, [number] * LANES)


def _numbers(builder: Any, address: Any, half: bool) -> list[Any]:
    """A vector's numbers: one vector of float32, or the even and the odd ones of bfloat16."""
    if not half:
        return [_load(builder, address, _ROW)]
    both = _load(builder, address, _BITS)
    parts = builder.shl(both, _bits(16)), builder.and_(both, _bits(0xFFFF0000))
    return [builder.bitcast(part, _ROW) for part in parts]


def _put(builder: Any, parts: Any, address: Any) -> None:
    """Write what `_numbers` reads."""
    if len(parts) == 1:
        _store(builder, parts[0], address)
    elif PAIRS:
        kind = ir.FunctionType(_HALVES, [_ROW, _ROW])
        name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
        even, odd = parts
        found = builder.bitcast(builder.call(_function(builder, kind, name), [odd, even]), _SHORTS)
        turns = ir.Constant(
            ir.VectorType(ir.IntType(32), 2 * LANES), [i // 2 + LANES * (i % 2) for i in range(2 * LANES)]
        )
        _store(builder, builder.shuffle_vector(found, found, turns), address)
    else:
        even, odd = (rounded_bits(builder, part, _BITS, LANES) for part in parts)
        low, high = builder.lshr(even, _bits(16)), builder.and_(odd, _bits(0xFFFF0000))
        _store(builder, builder.or_(low, high), address)


def _function(builder: Any, kind: Any, name: str) -> Any:
    return cgutils.get_or_insert_function(builder.module, kind, name)


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

    def add_pairs(self, i: int, left: Any, right: Any) -> None:
        """Products of bfloat16 numbers, of which two are added to each sum."""
        kind = ir.FunctionType(_ROW, [_ROW, _HALVES, _HALVES])
        function = _function(self.builder, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
        self.builder.store(
            self.builder.call(function, [self.builder.load(self.places[i]), left, right]), self.places[i]
        )

    def __getitem__(self, i: int) -> Any:
        return self.builder.load(self.places[i])


def _summing(outputs: int, vectors: int) -> Any:
    """A block of a convolution: so many outputs of so many vectors of float32, or half as many of bfloat16."""

    def made(half: bool) -> Any:
        parts, size = (2, 2) if half else (1, 4)
        count_of = max(1, vectors // parts)

        def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            _, x, offsets, weights, count, out, stride, more = given
            sums = _Sums(builder, outputs * count_of * parts)
            with cgutils.for_range(builder, count) as loop:
                offset = _load(builder, builder.add(offsets, _times(builder, loop.index, 8)), _LONG)
                place = builder.add(x, _times(builder, offset, size))
                row = builder.add(weights, _times(builder, loop.index, 4 * outputs))
                inputs = [
                    part for v in range(count_of) for part in _numbers(builder, _plus(builder, place, 64 * v), half)
                ]
                for o in range(outputs):
                    weight = _repeated(builder, _load(builder, _plus(builder, row, 4 * o), _NUMBER))
                    for i, part in enumerate(inputs):
                        sums.add(o * len(inputs) + i, weight, part)
            places = []
            for o in range(outputs):
                start = builder.add(out, _times(builder, stride, size * o))
                places += [_plus(builder, start, 64 * v) for v in range(count_of)]
            with builder.if_else(builder.trunc(more, ir.IntType(1))) as (then, otherwise):
                with then:
                    for i, place in enumerate(places):
                        there = _numbers(builder, place, half)
                        found = [sums[i * parts + j] for j in range(parts)]
                        added = [builder.fadd(a, b, flags=_FUSED) for a, b in zip(there, found, strict=True)]
                        _put(builder, added, place)
                with otherwise:
                    for i, place in enumerate(places):
                        _put(builder, [sums[i * parts + j] for j in range(parts)], place)
            return context.get_dummy_value()

        return codegen

    def typed(
        context: Any, memory: Any, x: Any, offsets: Any, weights: Any, count: Any, out: Any, stride: Any, more: Any
    ) -> Any:
        whole = types.int64
        kind = types.void(memory, _ADDRESS, _ADDRESS, _ADDRESS, whole, _ADDRESS, whole, whole)
        return kind, made(is_half(memory))

    return intrinsic(typed)


def _multiplying(outputs: int, inputs: int) -> Any:
    """A block of a weight gradient: products of so many outputs' and inputs' rows, summed up over the batch."""

    def made(half: bool) -> Any:
        size = 2 if half else 4

        def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            _, g, stride, x, offsets, places, vectors, g_step, x_step, out = given
            sums = _Sums(builder, outputs * inputs)
            step = [_times(builder, s, size) for s in (g_step, x_step)]
            starts = [_times(builder, stride, size * o) for o in range(outputs)]
            rows = [_times(builder, _load(builder, _plus(builder, offsets, 8 * i), _LONG), size) for i in range(inputs)]
            with cgutils.for_range(builder, places) as outer:
                g_place = builder.add(g, builder.mul(outer.index, step[0]))
                x_place = builder.add(x, builder.mul(outer.index, step[1]))
                with cgutils.for_range(builder, vectors) as inner:
                    at = _times(builder, inner.index, 64)
                    left = [builder.add(builder.add(g_place, s), at) for s in starts]
                    right = [builder.add(builder.add(x_place, r), at) for r in rows]
                    if half and PAIRS:
                        pairs = [[_load(builder, a, _HALVES) for a in side] for side in (left, right)]
                        for o in range(outputs):
                            for i in range(inputs):
                                sums.add_pairs(i * outputs + o, pairs[0][o], pairs[1][i])
                    else:
                        numbers = [[_numbers(builder, a, half) for a in side] for side in (left, right)]
                        for o in range(outputs):
                            for i in range(inputs):
                                for a, b in zip(numbers[0][o], numbers[1][i], strict=True):
                                    sums.add(i * outputs + o, a, b)
            total = _function(
                builder, ir.FunctionType(_NUMBER, [_NUMBER, _ROW]), f"llvm.vector.reduce.fadd.v{LANES}f32"
            )
            for i in range(outputs * inputs):
                place = _plus(builder, out, 4 * i)
                found = builder.call(total, [ir.Constant(_NUMBER, 0.0), sums[i]], fastmath=_FUSED)
                _store(builder, builder.fadd(_load(builder, place, _NUMBER), found, flags=_FUSED), place)
            return context.get_dummy_value()

        return codegen

    def typed(
        context: Any, memory: Any, g: Any, stride: Any, x: Any, offsets: Any, places: Any, vectors: Any, g_step: Any,
        x_step: Any, out: Any,
    ) -> Any:  # fmt: skip
        whole = types.int64
        kind = types.void(memory, _ADDRESS, whole, _ADDRESS, _ADDRESS, whole, whole, whole, whole, _ADDRESS)
        return kind, made(is_half(memory))

    return intrinsic(typed)


sum_four, sum_four_narrow = _summing(4, VECTORS), _summing(4, 1)
sum_one, sum_one_narrow = _summing(1, WIDTH), _summing(1, 1)
multiply_four, multiply_one = _multiplying(4, 4), _multiplying(1, 4)
