"""Write a JSON Schema to docs/schemas for every record that commands write to disk.

python scripts/export_schemas.py
"""

import json
from pathlib import Path

from microtome.store import records

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"


def schemas() -> dict[str, str]:
    """The text of every schema, by its file's name: microtome/summary/1 gives summary.schema.json."""
    return {f"{name_of(kind)}.schema.json": schema_of(kind) for kind in vars(records).values() if is_record(kind)}


def is_record(kind: object) -> bool:
    """A record that is written to a file of its own name."""
    return isinstance(kind, type) and issubclass(kind, records.Record) and "file" in vars(kind)


def name_of(kind: type[records.Record]) -> str:
    return kind.model_fields["schema_name"].default.split("/")[1]


def schema_of(kind: type[records.Record]) -> str:
    return json.dumps(kind.model_json_schema(by_alias=True, mode="serialization"), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
