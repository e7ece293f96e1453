"""A JSON file that names its schema, and is refused if it has another."""

from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.whole import whole

R = TypeVar("R", bound="Record[Any]")
Name = TypeVar("Name", bound=str)


class Record(BaseModel, Generic[Name]):
    """A JSON file with a schema name. Unknown keys are refused: a misspelt one is never silently dropped."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    schema_name: Name = Field(alias="schema")
    file: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write atomically: a reader sees the old file or the new one, never half of one."""
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / self.file) as path:
            path.write_text(self.model_dump_json(indent=2, by_alias=True))

    @classmethod
    def read(cls: type[R], folder: Path) -> R:
        """Raises pydantic's ValidationError where the file is not such a record."""
        return cls.model_validate_json((folder / cls.file).read_bytes())
