"""Kernels are compiled before workers start, which is said; where they are on disk nothing is said, nor looked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lotto
from conftest import small_recipe
from lotto.core.jit import jit_part, watched
from lotto.execution import schedule
from lotto.execution.events import JobStarted, KernelsCompiled, KernelsCompiling
from lotto.pruning import masks
from lotto.training import kernels
from lotto.training.job import Job
from lotto.training.kernels import compile_kernels, has_sparse_layers
from lotto.training.learners import program
from lotto.training.loop import learner_of


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lotto" / "kernels"


def signals(**changes):
    """A 1-D ResNet on a few signals."""
    x = np.random.default_rng(0).normal(size=(60, 1, 20)).astype(np.float32)
    data = lotto.data.Arrays(x[:40], np.arange(40) % 3, x[40:], np.arange(20) % 3, name="signals")
    return small_recipe(model="resnet-8-w4", data=data, steps="2it", init="module", **changes)


def sparse_job():
    recipe = small_recipe()
    return Job(recipe, mask=lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), density=0.1))


class InTurn(lotto.engine.Engine):
    """An engine of a user's, whose workers may be anywhere."""

    given = ()

    def submit(self, assignment):
        self.given = (*self.given, assignment)

    def collect(self, report):
        first, *self.given = self.given
        return [(first, first.compute())]

    def close(self):
        self.given = ()


def test_the_first_compilation_within_a_block_is_seen_and_no_call_of_what_is_compiled():
    said = []
    double, treble = jit_part(lambda x: 2 * x), jit_part(lambda x: 3 * x)
    for _ in range(2):
        with watched(lambda: said.append(1)):
            assert (double(3), treble(3)) == (6, 9)
    assert said == [1]
    double(3.0)
    assert said == [1]  # outside


def test_kernels_are_looked_for_once_for_a_kind_of_training(cache):
    job = Job(signals())
    assert compile_kernels(job)
    assert len([*cache.iterdir()]) == 1
    assert not compile_kernels(Job(signals(), order_seed=7))
    assert compile_kernels(Job(signals(batch_size=10)))
    assert compile_kernels(Job(signals(precision="bfloat16")))


def test_another_edition_of_the_code_is_looked_for_again(cache, tmp_path, monkeypatch):
    assert compile_kernels(Job(signals()))
    other = tmp_path / "kernels.py"
    other.touch()
    monkeypatch.setattr(kernels, "CODE", (kernels.CODE[0], other))
    assert compile_kernels(Job(signals()))


def test_what_is_trained_without_kernels_is_not_looked_into(cache):
    for changes in ({}, {"precision": "bfloat16"}):
        assert not compile_kernels(Job(small_recipe(**changes)))
    assert not compile_kernels(Job(sparse_job().recipe.replace(precision="bfloat16"), mask=sparse_job().mask))
    assert not cache.exists()


def test_a_perceptron_has_kernels_where_it_is_sparse(cache):
    assert not has_sparse_layers(Job(small_recipe()))
    assert has_sparse_layers(job := sparse_job())
    assert compile_kernels(job)
    assert not compile_kernels(job)


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compile_kernels(job := Job(signals()))
    assert compile_kernels(job)


@pytest.mark.parametrize("jobs", [1, 2])
def test_compiling_is_said_before_anything_goes_to_a_worker(jobs, store, monkeypatch):
    monkeypatch.setattr(schedule, "compile_kernels", lambda job, began: began())
    seen = []
    recipe = small_recipe()
    lotto.engine.make(jobs=jobs, store=store).run([Job(recipe), Job(recipe, order_seed=1)], seen.append)
    kinds = [type(event) for event in seen]
    assert kinds[:3] == [KernelsCompiling, KernelsCompiled, JobStarted]
    assert kinds.count(KernelsCompiling) == 1
    assert seen[1].seconds >= 0


def test_nothing_is_said_where_nothing_is_compiled_nor_where_workers_are_elsewhere(store, monkeypatch):
    seen = []
    lotto.train(small_recipe(), store=store, progress=seen.append)
    monkeypatch.setattr(schedule, "compile_kernels", lambda job, began: began())
    InTurn(store).run([Job(small_recipe(), order_seed=1)], seen.append)
    assert not [event for event in seen if isinstance(event, KernelsCompiling | KernelsCompiled)]


def test_a_kernel_that_knows_fewer_instructions_gives_the_same_bits(monkeypatch):
    runs = []
    for seldom in (False, True):
        monkeypatch.setattr(program, "runner", lambda _, seldom=seldom: program._runner(seldom))
        runs.append(lotto.training.train(Job(signals())))
    plain, whole = (run.at(2) for run in runs)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in plain.items())


def test_only_networks_that_need_them_have_the_seldom_instructions(monkeypatch):
    asked = []
    runner = program.runner
    monkeypatch.setattr(program, "runner", lambda rows: asked.append(runner(rows)) or asked[-1])
    learner_of([Job(signals())])._passes(4)
    assert asked == [program._runner(False)]
    assert runner(program.rows([program.row(program.GREATEST)])) is program._runner(True)
