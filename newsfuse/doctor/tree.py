"""The project that is examined: settings, plugins and data, each read once and only when somebody asks."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import ValidationError

from newsfuse.behaviors import Behaviors
from newsfuse.doctor.lock import Lock
from newsfuse.errors import NewsfuseError
from newsfuse.news import News
from newsfuse.params import FILE, Params, load
from newsfuse.parsed import Parsed
from newsfuse.registry import Registry

SPLITS = ("train", "dev")
FILES = ("news.tsv", "behaviors.tsv")


@dataclass(frozen=True)
class Tree:
    """The root of a project, the current folder. Nothing is put on the shelf of parsed files."""

    root: Path

    @cached_property
    def loaded(self) -> tuple[Params, Registry]:
        """Settings and plugins, all checked. Raises ParamsError, PluginError."""
        return load(self.root)

    @cached_property
    def params(self) -> Params | None:
        """The settings, even where a plugin is broken; None where they are no settings."""
        try:
            return Params.model_validate(yaml.safe_load((self.root / FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError, ValidationError):  # told by `loaded`
            return None

    @cached_property
    def registry(self) -> Registry | None:
        """The plugins; None where settings or plugins are broken."""
        try:
            return self.loaded[1]
        except NewsfuseError:
            return None

    @property
    def data(self) -> Path:
        """data/<dataset>."""
        return self.root / "data" / (self.params.dataset if self.params else "")

    def file(self, split: str, name: str) -> Path:
        """One of the data set's FILES."""
        return self.data / split / name

    @property
    def missing(self) -> list[Path]:
        """Files without which no stage runs."""
        return [path for split in SPLITS for name in FILES if not (path := self.file(split, name)).is_file()]

    @property
    def news_files(self) -> list[Path]:
        """Of train and of dev."""
        return [self.file(split, "news.tsv") for split in SPLITS]

    @cached_property
    def lock(self) -> Lock:
        """dvc.lock."""
        return Lock.read(self.root)

    @cached_property
    def news(self) -> News:
        """The articles of train and dev. Raises DataError."""
        return News.read(*self.news_files)

    @cached_property
    def train_news(self) -> News:
        """Those of train alone."""
        return News.read(self.news_files[0])

    @cached_property
    def train(self) -> Parsed:
        """Train's impressions in their own words. Raises DataError."""
        return Parsed.read(self.file("train", "behaviors.tsv"), labelled=True)

    @cached_property
    def dev(self) -> Parsed:
        """Those of dev."""
        return Parsed.read(self.file("dev", "behaviors.tsv"), labelled=True)

    def behaviors(self, split: str, news: News) -> Behaviors:
        """Train's or dev's impressions by the rows of `news`."""
        return Behaviors.of(self.train if split == "train" else self.dev, news)
