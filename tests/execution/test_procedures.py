"""Procedures: any pytree of jobs goes out, the same pytree of results comes back."""

from __future__ import annotations

import pytest

import lotto
from conftest import small_recipe
from lotto.execution.procedures import gather
from lotto.execution.serial import Serial
from lotto.landscape import PathTask
from lotto.training.job import Job


def job(seed):
    return Job(small_recipe(steps="2it"), init_seed=seed)


def test_a_pytree_of_jobs_and_tasks_gives_the_same_pytree_of_results(store):
    recipe = small_recipe(steps="2it")
    path = PathTask(recipe, recipe.initial(0), recipe.initial(1), 3)

    def procedure():
        found = yield {"runs": [job(0), (job(1),)], "path": path, "nothing": {}}
        alone = yield job(0)
        assert (yield {"nothing": [()]}) == {"nothing": [()]}
        return found, alone

    ((found, alone),) = Serial(store).run_procedures([procedure()])
    runs = Serial(store).run([job(0), job(1)])
    assert list(found) == ["runs", "path", "nothing"]
    assert [run.test_error for run in (found["runs"][0], *found["runs"][1])] == [run.test_error for run in runs]
    assert found["path"] == path.execute()
    assert found["nothing"] == {}
    assert alone.test_error == runs[0].test_error


def test_gathered_procedures_advance_side_by_side_and_keep_their_names(store):
    sent: list = []

    def procedure(length):
        total = 0.0
        for i in range(length):
            found = yield {"only": lotto.Job(small_recipe(steps="1it"), init_seed=10 * length + i)}
            total += found["only"].test_error
        return length, total

    def both():
        inner = gather({"short": procedure(1), "long": [procedure(3)]})
        jobs = next(inner)
        try:
            while True:
                sent.append(len(jobs))
                jobs = inner.send((yield jobs))
        except StopIteration as stop:
            return stop.value

    (result,) = Serial(store).run_procedures([both()])
    assert result["short"][0] == 1
    assert result["long"][0][0] == 3
    assert sent == [2, 1, 1]


def test_the_former_name_of_run_procedures_works_and_warns(store):
    def procedure():
        return (yield [job(0)])[0].test_error

    with pytest.warns(DeprecationWarning, match=r"Engine\.drive is Engine\.run_procedures now"):
        found = Serial(store).drive([procedure()])
    assert found == Serial(store).run_procedures([procedure()])
