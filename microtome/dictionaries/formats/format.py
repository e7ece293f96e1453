"""What a format is: it recognises a folder or file, loads dictionaries from it, and writes them."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.formats.sites import site_of
from microtome.dictionaries.formats.tensor_files import (
    AGAIN,
    PICKLES,
    read_npz,
    read_pickle,
    read_safetensors,
    read_yaml,
)
from microtome.store.whole import whole


class SiteUnknown(Refusal):
    """A file that does not say at which site its dictionary belongs, or a folder of several with no choice made."""


@dataclass(frozen=True)
class Source:
    """Something on disk that may hold a dictionary; `site` is where it belongs, when the user says so."""

    path: Path
    allow_pickle: bool = False
    site: str | None = None

    def lacks(self, *names: str) -> str | None:
        """Why this is no folder with these files in it, or None where it is."""
        if not self.path.is_dir():
            return f"it is a folder with {' and '.join(names)}"
        missing = [name for name in names if not (self.path / name).is_file()]
        return f"there is no {missing[0]}" if missing else None

    def json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise Refusal(f"{path} cannot be read ({type(error).__name__}); {AGAIN}") from None
        if not isinstance(found, dict):
            raise Refusal(f"{path} holds a {type(found).__name__}, where a description is an object; {AGAIN}")
        return found

    def yaml(self, name: str) -> dict[str, Any]:
        return read_yaml(self.path / name)

    def tensors(self, name: str = "") -> dict[str, Any]:
        """What a file of this folder holds, or this file itself."""
        path = self.path / name if name else self.path
        if path.suffix in PICKLES:
            return read_pickle(path, self.allow_pickle)
        return read_npz(path) if path.suffix == ".npz" else read_safetensors(path)

    def place(self, named: str | None) -> Site:
        """Where the dictionary belongs: what the user says, else what the file says. Raises SiteUnknown for neither."""
        if self.site is not None:
            return site_of(self.site)
        if named is None:
            raise SiteUnknown(
                f"{self.path} does not say at which site its dictionary belongs; give it, such as site='resid_post.8' "
                "(--site resid_post.8)"
            )
        return site_of(named)


@dataclass(frozen=True)
class Published:
    """What a file held: dictionaries, what its metadata claims, and what a reader should know.

    `subtracts` says whether the format takes the decoder's bias from the input; None where it has no say. `claims` are
    figures by name: width, d_in, l0, explained_variance.
    """

    dictionaries: Sequence[Dictionary]
    subtracts: bool | None = None
    claims: Mapping[str, int | float] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Format(ABC):
    """One way in which dictionaries lie on disk."""

    name: str  # as in `--to NAME`
    owner: str  # whose format it is

    @abstractmethod
    def why_not(self, source: Source) -> str | None:
        """Why this is not of this format; None where it is. Raises Refusal only where pickles must be allowed first."""

    @abstractmethod
    def load(self, source: Source) -> Published:
        """Read it. Raises Refusal for what the format allows and this package has no form for."""

    @abstractmethod
    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        """Write one dictionary into a folder. Raises Refusal for what the format cannot express."""

    def write(self, dictionaries: Sequence[Dictionary], folder: Path) -> None:
        """Write dictionaries into a folder: several in a folder each, named by the site they read."""
        if len(dictionaries) == 1:
            return self.write_one(dictionaries[0], folder)
        for dictionary in dictionaries:
            self.write_one(dictionary, folder / str(dictionary.reads[0]))


def write_json(values: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as place:
        place.write_text(json.dumps(dict(values), indent=1), encoding="utf-8")


def lacks_tensors(found: Mapping[str, Any], *names: str) -> str | None:
    """Why these are not the tensors of a format, or None where they are."""
    missing = [name for name in names if not isinstance(found.get(name), Tensor)]
    return f"it holds no tensor {missing[0]!r}" if missing else None
