"""What a loader of torch's means: examples by number where it only shuffles, else a stream."""

from __future__ import annotations

import logging
from typing import Any, cast

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.data.indexed import Indexed
from lotto.data.stream import Stream

log = logging.getLogger(__name__)


@checked
def from_loaders(
    train: Any,
    test: Any,
    *,
    validation: Any = None,
    target: str | None = None,
    fingerprint: str | None = None,
    classes: int | None = None,
    name: str = "data",
) -> Indexed | Stream:
    """The data of loaders of torch's.

    Loaders that take a map-style data set in order, or shuffled by torch's own sampler, are their ``dataset``,
    ``collate_fn``, ``num_workers`` and ``batch_size``: lotto draws the order of every epoch itself, so that it can
    begin at any step. With a sampler of their own, or an `IterableDataset`, they are a `Stream`: what begins in the
    middle reads all before and drops it.

    Args:
        train: the loader of training batches.
        test: that of test batches.
        validation: that of a validation set, if there is one.
        target, fingerprint, classes, name: see `Indexed`.

    Raises:
        UsageError: for what is no loader.

    >>> from torch.utils.data import TensorDataset
    >>> examples = TensorDataset(torch.randn(64, 8), torch.arange(64) % 3)
    >>> from_loaders(DataLoader(examples, 16, shuffle=True), DataLoader(examples, 32))
    Indexed('data': 64 train, 64 test, any example by its number)
    """
    given = {"train": train, "test": test, **({} if validation is None else {"validation": validation})}
    for which, loader in given.items():
        if not isinstance(loader, DataLoader):
            raise UsageError(
                f"The {which} loader is a torch.utils.data.DataLoader; got {text(loader)}. A data set is given to "
                "lotto.data.Indexed, any other iterable of batches to lotto.data.Stream."
            )
    loaders = cast(dict[str, DataLoader[Any]], given)
    stated: dict[str, Any] = {"target": target, "fingerprint": fingerprint, "classes": classes, "name": name}
    by_number = all(map(takes_any, loaders.values()))
    functions = [loader.collate_fn for loader in loaders.values()]
    if not by_number or any(function is not functions[0] for function in functions):
        return Stream(train, test, validation=validation, batch_size=train.batch_size, **stated)
    if isinstance(train.sampler, SequentialSampler):
        log.warning("The training loader of %s does not shuffle: lotto draws a new order for every epoch.", name)
    return Indexed(
        train.dataset,
        test.dataset,
        validation=None if validation is None else validation.dataset,
        collate=None if functions[0] is default_collate else functions[0],
        workers=train.num_workers,
        batch_size=train.batch_size,
        **stated,
    )


def takes_any(loader: DataLoader[Any]) -> bool:
    """Whether a loader takes the examples of a map-style data set in their order or in one that torch draws.

    >>> takes_any(DataLoader([1, 2, 3], 2, shuffle=True))
    True
    """
    if isinstance(loader.dataset, IterableDataset) or type(loader.batch_sampler) is not BatchSampler:
        return False
    sampler = loader.sampler
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(cast(Any, loader.dataset))
    return type(sampler) is SequentialSampler
