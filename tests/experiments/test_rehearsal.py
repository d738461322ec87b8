"""How many trainings an experiment has is known before the first of them."""

import io

import pytest
from rich.console import Console

from conftest import small_recipe
from lotto import papers
from lotto.cli.display import Display
from lotto.execution import progress
from lotto.execution.events import JobFinished
from lotto.execution.progress import Counted
from lotto.execution.serial import Serial
from lotto.experiments import experiment as module
from lotto.experiments.rehearsal import trainings
from lotto.landscape.curvature import convergence
from lotto.papers.unmasking import pruning_limit
from lotto.training.job import Job

SEARCHING = {
    "unmasking.pruning_limit",
    "unmasking.flatness",
    "unmasking.adaptive",
    "missing_the_mark.ablations",
    "permuted.transplant",
    "permuted.widths",
    "modes.solutions",
    "modes.copies",
    "modes.starts",
    "methods.compute",
}


def options(experiment, **changes):
    small = {"replicates": 2, "levels": 2, "points": 3, "orders": 2, "rewind_to": ("0it", "5it")}
    recipe = small_recipe(steps="20it", validation=8 if experiment.chooses else 0)
    return experiment.options(recipe, {**small, **changes})


def read(experiment, chosen, store):
    """The different trainings that it asks for when it is run."""
    found = Counted()

    def see(event):
        if isinstance(event, JobFinished) and isinstance(event.job, Job):
            found.add(event.job)

    experiment.run(chosen, Serial(store), see)
    return len(found)


@pytest.mark.parametrize("name", [*papers.EXPERIMENTS])
def test_an_experiment_knows_how_many_trainings_it_has(name, store, monkeypatch, caplog):
    experiment = papers.get(name)
    chosen = options(experiment)
    counted = experiment.trainings(chosen)
    assert not caplog.records
    if name in SEARCHING:
        assert counted is None
        return
    monkeypatch.setattr(convergence, "PROBED", 1)
    monkeypatch.setattr(convergence, "EXACT", 0)
    monkeypatch.setattr(pruning_limit, "STEPS", 48)
    assert counted == read(experiment, chosen, store)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("stabilizing.rewind", {"orders": 3, "restart_dense": True}),
        ("stabilizing.sparsity", {"control_steps": ("5it",)}),
        ("stabilizing.sparsity", {"control_steps": ("none",), "densities": (0.5, 0.2, 0.1)}),
        ("stabilizing.subnetworks", {"eval_levels": (1,)}),
        ("unmasking.connectivity", {"random_chain": False}),
    ],
)
def test_and_with_options_of_its_own(name, changes, store):
    experiment = papers.get(name)
    chosen = options(experiment, **changes)
    assert experiment.trainings(chosen) == read(experiment, chosen, store)


def test_a_large_network_and_one_that_cannot_be_counted_are_not(monkeypatch):
    experiment = papers.get("stabilizing.sparsity")
    chosen = options(experiment)
    monkeypatch.setattr(module, "MOST_REHEARSED", 10)
    assert experiment.trainings(chosen) is None

    def fails(case):
        yield Job(case.recipe)
        raise ValueError

    monkeypatch.undo()
    assert module.Experiment("fails", "", "", fails).trainings(chosen) is None


def test_nothing_is_counted_where_nothing_is_shown(store, monkeypatch):
    counted = []
    monkeypatch.setattr(module, "trainings", lambda procedures: counted.append(1) or 1)
    experiment = papers.get("stabilizing.sparsity")
    chosen = options(experiment, replicates=1, levels=1, rewind_to=("0it",))
    for shown in (None, False):  # no terminal here
        experiment.run(chosen, Serial(store), shown)
    assert not counted
    monkeypatch.setattr(progress, "_on_terminal", lambda: True)
    experiment.run(chosen, Serial(store))
    assert counted == [1]


def test_what_is_asked_for_twice_is_one_training():
    recipe = small_recipe()

    def asks(*seeds):
        for seed in seeds:
            yield Job(recipe, seed)

    assert trainings([asks(0, 1), asks(1, 2), asks(0)]) == 3


def test_the_display_counts_trainings_until_there_are_more_than_was_said():
    recipe = small_recipe()
    text = io.StringIO()
    with Display(Console(file=text, force_terminal=True, force_interactive=True, width=100), trainings=2) as display:
        for seed, done in ((0, 1), (0, 1), (1, 2)):
            display(JobFinished(Job(recipe, seed), None, True))
            display.draw()
            display.bars.refresh()
            assert (display.title, display.done, display.total) == ("all trainings", done, 2)
        display(JobFinished(Job(recipe, 2), None, True))
        display.draw()
        assert (display.title, display.done, display.total) == ("all jobs", 4, None)
    assert "2/2" in text.getvalue()
