"""Files that appear whole or not at all: a reader sees the old one or the new one, never half of one."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from microtome.core.errors import Refusal


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` at the block's end; one that fails leaves nothing new, the old as it was.

    Raises OSError where the disk is full or refuses, also where a safetensors writer says it in words of its own.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise disk_error(error, path) from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def disk_error(error: SafetensorError, path: Path) -> Exception:
    """The error of the disk that safetensors met, as Python has it; its own where it was another."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else error


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn what a missing or damaged file raises into a sentence that ends with the remedy."""
    try:
        yield
    except FileNotFoundError:
        raise Refusal(f"{path} is missing; {remedy}") from None
    except (SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, Refusal):
            raise
        raise Refusal(f"{path} is damaged; {remedy}") from None
