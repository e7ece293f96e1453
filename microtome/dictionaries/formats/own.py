"""This package's own folders: dictionary.json and weights.safetensors, which hold every kind of dictionary."""

from pathlib import Path

from microtome.core.component import Dictionary
from microtome.dictionaries.files import load_dictionary, save_dictionary
from microtome.dictionaries.formats.format import Format, Published, Source


class Own(Format):
    """Nothing is folded, translated or lost."""

    name, owner = "microtome", "this package"

    def why_not(self, source: Source) -> str | None:
        return source.lacks("dictionary.json")

    def load(self, source: Source) -> Published:
        return Published([load_dictionary(source.path)])

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        save_dictionary(dictionary, folder)
