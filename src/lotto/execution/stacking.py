"""Which jobs train together in a stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lotto.execution.compute import get_or_compute, get_or_compute_stack
from lotto.execution.store import Result, Store, WorkItem
from lotto.execution.task import Task
from lotto.training.job import Job


def stacks(items: Sequence[WorkItem], most: int) -> list[list[WorkItem]]:
    """Jobs that can train together, at most ``most`` a list: one recipe, different trainings; tasks are single."""
    found: list[list[WorkItem]] = []
    for item in items:
        for stack in found:
            if len(stack) < most and _joins(item, stack):
                stack.append(item)
                break
        else:
            found.append([item])
    return found


def compute_stack(
    store: Store, stack: Sequence[WorkItem], on_step: Callable[[int, int, float], None], execution: Mapping[str, Any]
) -> list[tuple[Result, bool]]:
    """What each of a stack gives, and whether it had to be computed; several train together.

    Args:
        store: where runs are stored.
        stack: see `stacks`.
        on_step: called with (number in the stack, steps done, mean loss lately).
        execution: how it is executed, for the manifests.
    """
    jobs = [item for item in stack if isinstance(item, Job)]
    if len(jobs) > 1:
        return [*get_or_compute_stack(store, jobs, on_step=on_step, execution={**execution, "stack": len(jobs)})]
    (item,) = stack
    return [get_or_compute(store, item, on_step=partial(on_step, 0), execution=execution)]


def _joins(item: WorkItem, stack: Sequence[WorkItem]) -> bool:
    if isinstance(item, Task) or isinstance(stack[0], Task):
        return False
    if item.recipe != stack[0].recipe:
        return False
    return item.key is None or all(item.key != other.key for other in stack)
