# SPDX-License-Identifier: Apache-2.0
"""Samples: which data is fed to a model, and how."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.choices import Layout
from graphprune.cli.options.device import RunningDevice
from graphprune.errors import UsageError, quote
from graphprune.extras import require

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.cli.console import Talk
    from graphprune.data.preprocessing import Preprocessing
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.trials.meter import Measures

__all__ = [
    "AddSynthetic",
    "CalibrationSamples",
    "ImageOptions",
    "MeasuringSamples",
    "RecoverySamples",
    "TrainingSamples",
    "check_added",
]

_SOURCES = "a folder of images, .npz, .npy, package.module:function, torchvision:NAME, or synthetic[:fine][:N]"
_SIZE_HELP = "Size to which image files are brought."

AddSynthetic = Annotated[
    int | None,
    typer.Option(
        "--add-synthetic",
        metavar="N",
        min=1,
        help="Beside a few samples of --calib, also use N that are made from what the file remembers and refined; none "
        "of them judges (needs torch).",
        show_default=False,
        rich_help_panel="Samples",
    ),
]

_Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Use this many samples, evenly spaced.", show_default=False)
]


def check_added(count: int | None, calib: str | None) -> None:
    """Refuse to add made samples to none, or without torch.

    Raises
    ------
    UsageError
        If that is what is asked for.
    """
    from graphprune.data.synthesis.make_samples import read_request

    if count is None:
        return
    if calib is None or read_request(calib) is not None:
        raise UsageError(
            "--add-synthetic adds to samples of --calib, and none are given",
            hint=f"for made ones alone say --calib synthetic:fine:{count}",
        )
    require("train", "--add-synthetic")


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images of 8 bits are fed."""

    panel: ClassVar[str] = "Samples"

    mean: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Mean of 8-bit images, in units of full scale.", show_default=False),
    ] = None
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Their deviation, likewise.", show_default=False)] = (
        None
    )
    image_size: Annotated[
        str | None, typer.Option("--image-size", metavar="HxW", help=_SIZE_HELP, show_default=False)
    ] = None
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="Where the model has its channels, if its input does not tell.",
            show_default=False,
            case_sensitive=False,
        ),
    ] = None

    def preprocessing(self, model: Model) -> Preprocessing:
        """Return how images are prepared; options win over ``graphprune.toml`` beside the model.

        Raises
        ------
        UsageError
            If an option has no meaning.
        """
        from graphprune.data.preprocessing import parse_numbers, parse_size, read_settings

        settings = read_settings(model.path)
        if self.mean is not None:
            settings = replace(settings, mean=parse_numbers(self.mean, "--mean"))
        if self.std is not None:
            settings = replace(settings, std=parse_numbers(self.std, "--std"))
        if self.image_size is not None:
            settings = replace(settings, size=parse_size(self.image_size))
        if self.layout is not None:
            settings = replace(settings, layout=self.layout)
        return settings

    def open_source(self, text: str, model: Model, talk: Talk, limit: int | None = None) -> Source:
        """Open what ``--data`` or ``--calib`` names, and say how it is fed.

        Raises
        ------
        DataError, UsageError
            If an option has no meaning, or the data does not fit the model.
        """
        source = self.opened(text, model, talk, self.preprocessing(model), limit)
        self._check_used(text, source)
        return source

    @staticmethod
    def opened(text: str, model: Model, talk: Talk, settings: Preprocessing, limit: int | None = None) -> Source:
        """Open samples, and say how they are fed."""
        from graphprune import accuracy
        from graphprune.data.normalisation import feeding

        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always")
            source = accuracy.open_data(text, model, settings).limited(limit)
        for doubt in doubts:
            talk.warn(str(doubt.message))
        talk.say("samples", feeding(source))
        return source

    @property
    def typed(self) -> tuple[str, ...]:
        """These options as they are typed."""
        options = {"--mean": self.mean, "--std": self.std, "--image-size": self.image_size, "--layout": self.layout}
        return tuple(part for name, value in options.items() if value is not None for part in (name, value))

    @property
    def _given(self) -> str | None:
        """An option that says how images of 8 bits are fed, if there is one."""
        options = (("--mean", self.mean), ("--std", self.std), ("--image-size", self.image_size))
        return next((option for option, value in options if value is not None), None)

    def check_needed(self, *sources: str | None) -> None:
        """Refuse options where nothing is read that they could be for, before anything is done.

        Parameters
        ----------
        *sources : str or None
            What the options that name samples say.

        Raises
        ------
        UsageError
            If there is one.
        """
        from graphprune.data.synthesis.make_samples import read_request

        if self._given is not None and all(text is None or read_request(text) is not None for text in sources):
            raise UsageError(
                f"{self._given} is for images of 8 bits, and there are none",
                hint="leave it out, or name the images with --calib or --data",
            )

    def _check_used(self, text: str, source: Source) -> None:
        from graphprune.data.arrays import ArrayReader

        if self._given is not None and isinstance(source.reader, ArrayReader) and not source.reader.images:
            raise UsageError(
                f"{self._given} is for images of 8 bits; {quote(text)} holds none, and its arrays are fed as they are",
                hint="leave it out, or store images as uint8 of shape (samples, height, width, channels)",
            )


@dataclass(frozen=True, kw_only=True)
class CalibrationSamples:
    """Samples without labels, where there are some."""

    panel: ClassVar[str] = "Samples"

    calib: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help=f"Samples, labels are not needed: {_SOURCES}.", show_default=False),
    ] = None
    images: ImageOptions
    running: RunningDevice

    @property
    def typed(self) -> tuple[str, ...]:
        """The samples and how they are fed, as they are typed after ``--calib``; empty where none are given."""
        return () if self.calib is None else (self.calib, *self.images.typed)

    def open(self, model: Model, talk: Talk) -> Source | None:
        """Open the samples, if some are given."""
        return None if self.calib is None else self.images.open_source(self.calib, model, talk)


@dataclass(frozen=True, kw_only=True)
class RecoverySamples:
    """Samples without labels, from which a network is recovered."""

    panel: ClassVar[str] = "Samples"

    calib: Annotated[str, typer.Option(metavar="SOURCE", help=f"Samples, labels are not needed: {_SOURCES}.")]
    samples: Annotated[int, typer.Option(metavar="N", min=2, help="The most samples used.")] = 1024
    add_synthetic: AddSynthetic = None
    images: ImageOptions
    running: RunningDevice

    def open(self, model: Model, talk: Talk) -> Source:
        """Open the samples."""
        return self.images.open_source(self.calib, model, talk)

    def check(self) -> None:
        """Refuse to add samples where they would be all there is, or without torch; and options for images likewise."""
        check_added(self.add_synthetic, self.calib)
        self.images.check_needed(self.calib)


@dataclass(frozen=True, kw_only=True)
class TrainingSamples:
    """Samples with labels or without."""

    panel: ClassVar[str] = "Samples"

    data: Annotated[
        str,
        typer.Option(metavar="SOURCE", help=f"Samples, with labels or without: {_SOURCES}.", show_default=False),
    ]
    limit: _Limit = None
    images: ImageOptions

    def open(self, model: Model, talk: Talk) -> Source:
        """Open the samples."""
        return self.images.open_source(self.data, model, talk, self.limit)


@dataclass(frozen=True, kw_only=True)
class MeasuringSamples:
    """What is measured of pruned models, and on what."""

    panel: ClassVar[str] = "Samples"

    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help=f"Measure the accuracy of each result on: {_SOURCES}. By default on a part of --calib.",
            show_default=False,
        ),
    ] = None
    calib: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Samples from which each result is recovered, and at which criteria and solvers may look. By default "
            "some are made from what the file remembers.",
            show_default=False,
        ),
    ] = None
    limit: _Limit = None
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Neither make samples nor recover: without --data, results are ranked by kept saliency, in seconds.",
        ),
    ] = False
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure the latency of each result.", rich_help_panel="Output")
    ] = False
    images: ImageOptions
    running: RunningDevice

    def measures(self, path: Path, talk: Talk) -> Measures:
        """Return the same for the Python API; images of both sources are normalised as is found for the first.

        Raises
        ------
        DataError, UsageError
            If samples cannot be read, or do not fit the model.
        """
        from graphprune.data.synthesis.make_samples import read_request
        from graphprune.trials.meter import Measures

        self.images.check_needed(self.data, self.calib)
        given = [(text, limit) for text, limit in ((self.data, self.limit), (self.calib, None)) if text]
        named = [(text, limit) for text, limit in given if read_request(text) is None]
        whole = Measures(
            self.bench, self.data or "", self.calib or "", self.limit, alone=not self.quick, recover=not self.quick
        )
        if not named:
            return whole

        from graphprune import api
        from graphprune.data.normalisation import image_input

        model = api.load(path)
        settings = self.images.preprocessing(model)
        for text, limit in named:
            image = image_input(self.images.opened(text, model, talk, settings, limit).reader)
            settings = settings if image is None else image.preprocessing
        return replace(whole, preprocessing=settings)
