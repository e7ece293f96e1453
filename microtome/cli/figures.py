"""The file that `--json` names: a command's figures, as they also stand in its run folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel


def make_room(file: Path | None) -> None:
    """Make the folders of a file that was named, before the work: what cannot be written is said at once."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)


def write_figures(found: BaseModel | Sequence[BaseModel], file: Path | None) -> None:
    """Write a record, or a list of them, to the file that was named, in folders that need not be there; or nothing."""
    if file is None:
        return
    plain = plain_values(found) if isinstance(found, BaseModel) else [plain_values(one) for one in found]
    make_room(file)
    file.write_text(json.dumps(plain, indent=2, ensure_ascii=False), encoding="utf-8")


def plain_values(record: BaseModel) -> dict:
    """What JSON holds of a record, under the names that stand in files; what is not a number is null."""
    return json.loads(record.model_dump_json(by_alias=True))
