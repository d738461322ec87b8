"""A folder of images in the usual layout, ``train/CLASS/*`` and ``test/CLASS/*`` (or ``val``)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lotto.core.check import Bounds, Count, Few, checked
from lotto.core.errors import DataError, UsageError, text
from lotto.core.rng import stream
from lotto.data.augment import Augment, Augmentation, Rows, changed, is_own
from lotto.data.batch import Batch
from lotto.data.file_digests import file_digests
from lotto.data.in_memory import check_split, held_out
from lotto.data.order import check_batch_size, permutation
from lotto.data.source import PROBES, DataSource, Split
from lotto.data.upload import uploaded

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}


AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""A random crop covers a fraction of the image between these, with an aspect ratio between those."""

Key = tuple[int, "tuple[float, ...] | None"]
"""Number of an image, and the four draws in [0, 1) of its random crop."""


class _Images(Dataset[tuple[Tensor, int]]):
    def __init__(self, items: Sequence[tuple[Path, int]], size: int, shorter: int) -> None:
        self.items, self.size, self.shorter = items, size, shorter

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        index, draws = key
        path, label = self.items[index]
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except Exception as error:  # of a file that holds anything
            raise DataError(f"The image {text(str(path))} cannot be read: {text(str(error))}. Replace it.") from error
        image = self._centre(image) if draws is None else self._random(image, draws)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(), label

    def _centre(self, image: Image.Image) -> Image.Image:
        """Shorter side to ``shorter``, then the centre: what every ImageNet evaluation does."""
        scale = self.shorter / min(image.size)
        image = image.resize((max(self.size, round(image.width * scale)), max(self.size, round(image.height * scale))))
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))

    def _random(self, image: Image.Image, draws: Sequence[float]) -> Image.Image:
        """A crop of random area, shape and place, scaled to the size; cut to the image where it does not fit."""
        area = (AREA[0] + (AREA[1] - AREA[0]) * draws[0]) * image.width * image.height
        ratio = math.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * draws[1])
        width = min(image.width, max(1, round(math.sqrt(area * ratio))))
        height = min(image.height, max(1, round(math.sqrt(area / ratio))))
        left = int(draws[2] * (image.width - width + 1))
        top = int(draws[3] * (image.height - height + 1))
        return image.resize((self.size, self.size), box=(left, top, left + width, top + height))


_OWN = ("root", "image_size", "workers", "shorter", "random_crop", "name", "_mean", "_std", "labels", "items", "device")


@checked
class ImageFolder(DataSource):
    """Images read from disk as they are needed, in a deterministic order that can start at any step.

    Args:
        path: the folder with ``train`` and ``test`` (or ``val``) subfolders, one folder per class.
        size: images are scaled and centre-cropped to ``size`` x ``size`` pixels.
        shorter: the shorter side before the crop; default ``size``. ImageNet's usual values are 224 and 256.
        random_crop: training images are random crops (8 to 100 % of the area, aspect ratio 3:4 to 4:3) scaled to the
            size, as is usual for ImageNet, instead of the centre.
        workers: processes that read ahead; 0 reads in the training process.
        mean, std: per-channel normalisation of pixels in [0, 1]; defaults: ImageNet's.

    Raises:
        UsageError: if the layout is not there, or a test class is not among the training classes.

    >>> for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
    ...     Path("pets", place).mkdir(parents=True)
    ...     Image.new("RGB", (20, 16)).save(Path("pets", place, "1.png"))
    >>> data = ImageFolder("pets", size=8)
    >>> data.shape, data.classes, data.size("test")
    ((3, 8, 8), 2, 2)
    """

    def __init__(
        self,
        path: str | Path,
        size: Few = 224,
        workers: Annotated[int, Bounds(0, 1024)] = 0,
        shorter: Few | None = None,
        random_crop: bool = False,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        self.root, self.image_size, self.workers = Path(path), size, workers
        self.shorter, self.random_crop = shorter or size, random_crop
        if self.shorter < size:
            raise UsageError(f"The shorter side is at least the size, {size}; got {shorter}.")
        self.name = self.root.name
        self._mean, self._std = tuple(mean), tuple(std)
        train = self.root / "train"
        test = next((p for p in (self.root / "test", self.root / "val") if p.is_dir()), None)
        if not train.is_dir() or test is None:
            raise UsageError(f"{self.root} needs the folders 'train' and 'test' (or 'val').")
        names = sorted(p.name for p in train.iterdir() if p.is_dir())
        self.labels = {name: i for i, name in enumerate(names)}
        self.items: dict[str, list[tuple[Path, int]]] = {"train": self._list(train), "test": self._list(test)}
        trained = {label for _, label in self.items["train"]}
        for path, label in self.items["test"]:
            if label not in trained:
                raise UsageError(f"The class {path.parent.name!r} in {path.parent.parent} has no training images.")
        for split, items in self.items.items():
            if not items:
                raise UsageError(f"{self.root} has no images in its {split} folder.")

    def _list(self, folder: Path) -> list[tuple[Path, int]]:
        found = []
        for path in sorted(folder.glob("*/*")):
            if path.suffix.lower() in SUFFIXES:
                if path.parent.name not in self.labels:
                    raise UsageError(f"The class {path.parent.name!r} in {folder} has no training images.")
                found.append((path, self.labels[path.parent.name]))
        return found

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(items)} {split}" for split, items in self.items.items())
        return f"{type(self).__name__}({str(self.root)!r}: {sizes}, inputs {'×'.join(map(str, self.shape))})"

    has_tensors = True
    """Inputs and targets are one tensor each."""

    @property
    def example(self) -> Batch:
        """Shapes and types of two examples, on the meta device."""
        with torch.device("meta"):
            return Batch(torch.empty(PROBES, *self.shape), torch.empty(PROBES, dtype=torch.int64))

    def train_batches(self, seed: int, start: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`: `batches`, not augmented."""
        return self.batches(seed, start, stop, batch_size)

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`: `evaluation`."""
        return self.evaluation(split, batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return (3, self.image_size, self.image_size)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def class_targets(self) -> bool:
        """Whether the targets are integer classes: always."""
        return True

    def size(self, split: Split = "train") -> int:
        """Number of images in a split."""
        return len(self.items.get(split, ()))

    def class_labels(self, split: Split = "train") -> Tensor:
        """The class of every image."""
        return torch.tensor([label for _, label in self.items[split]])

    @property
    def fingerprint(self) -> str:
        """Hash of the relative paths and of what is in the files."""
        how = f"{self.image_size}:{self.shorter}:{self.random_crop}:{self._mean}{self._std}"
        digest = hashlib.blake2b(how.encode(), digest_size=16)
        contents = file_digests([path for items in self.items.values() for path, _ in items])
        for split, items in sorted(self.items.items()):
            for path, label in items:
                name = path.relative_to(self.root).as_posix()
                digest.update(f"{split}:{name}:{label}:{contents[path]}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @property
    def additions(self) -> dict[str, Any]:
        """What a subclass holds besides the images."""
        return {k: v for k, v in sorted(vars(self).items()) if k not in _OWN}

    @checked
    def hold_out(self, count: int) -> ImageFolder:
        """Set ``count`` training images aside to validate; always the same ones."""
        if count == 0:
            return self
        held = set(held_out(count, self.size(), "images").tolist())
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        train = self.items["train"]
        other.items = {
            **self.items,
            "train": [item for i, item in enumerate(train) if i not in held],
            "validation": [item for i, item in enumerate(train) if i in held],
        }
        return other

    def to(self, device: torch.device) -> ImageFolder:
        """The same images, delivered to another device."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.__dict__["device"] = device
        return other

    def _read(self, split: Split, batches: Sequence[Sequence[Key]]) -> Iterator[Batch]:
        device = self.__dict__.get("device", torch.device("cpu"))
        loader = DataLoader(
            _Images(self.items[split], self.image_size, self.shorter),
            batch_sampler=batches,  # type: ignore[arg-type]  # any key that the data set understands
            num_workers=self.workers,
            multiprocessing_context="spawn" if self.workers else None,
            # A generator of its own: without it the loader draws a seed from torch's global one.
            generator=torch.Generator(),
        )
        for x, y in loader:
            yield Batch(uploaded(x, device), uploaded(y, device))

    def normalise(self, x: Tensor) -> Tensor:
        """From uint8 pixels to normalised float32."""
        mean, std = (torch.tensor(v, device=x.device).view(-1, 1, 1) for v in (self._mean, self._std))
        return (x.float() / 255 - mean) / std

    @checked
    def batches(
        self,
        seed: int,
        start: int,
        stop: int,
        batch_size: int,
        augment: Augmentation | None = None,
        feature_major: bool = False,
        only: Sequence[int] | None = None,
    ) -> Iterator[Batch]:
        """See `Arrays.batches`; with ``only`` these examples of each batch, and no others are read."""
        if is_own(augment):
            yield from changed(self.batches(seed, start, stop, batch_size), augment, seed, start, feature_major)
            return
        check_batch_size(batch_size, self.size())
        per_epoch = self.size() // batch_size
        rows = None if only is None else Rows(np.asarray(only), batch_size)
        for epoch in range(start // per_epoch, -(-stop // per_epoch)):
            first, last = max(start, epoch * per_epoch), min(stop, (epoch + 1) * per_epoch)
            order = permutation(seed, epoch, self.size())
            keys = []
            for step in range(first, last):
                at = (step % per_epoch) * batch_size
                whole = [*zip(order[at : at + batch_size].tolist(), self._draws(seed, step, batch_size), strict=True)]
                keys.append(whole if only is None else [whole[i] for i in only])
            for step, (x, y) in zip(range(first, last), self._read("train", keys), strict=True):
                inputs = self.normalise(x if augment is None else _augmented(augment, x, seed, step, rows))
                yield Batch(inputs.flatten(1).t().contiguous() if feature_major else inputs, y)

    def _draws(self, seed: int, step: int, batch: int) -> list[tuple[float, ...] | None]:
        if not self.random_crop:
            return [None] * batch
        return [tuple(row) for row in stream(seed, "crop", step).random((batch, 4)).tolist()]

    @checked
    def evaluation(
        self, split: Split, batch_size: Count, stride: Count = 1, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """All images of a split, or every so manieth, in order, not augmented.

        With the ``share`` (r, n) every n-th batch from number r on, and no others are read.
        """
        check_split(self, split)
        chosen = range(0, self.size(split), stride)
        keys: list[list[Key]] = [
            [(j, None) for j in chosen[i : i + batch_size]]
            for i in range(share[0] * batch_size, len(chosen), share[1] * batch_size)
        ]
        for x, y in self._read(split, keys):
            yield Batch(self.normalise(x), y)


def _augmented(augment: Augment, x: Tensor, seed: int, step: int, rows: Rows | None) -> Tensor:
    return augment(x, seed, step) if rows is None else augment(x, seed, step, rows)
