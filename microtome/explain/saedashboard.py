"""SAEDashboard's batches: what its runner writes of some features, and Neuronpedia is fed from.

A folder of `batch-0.json`, `batch-1.json` and so on, each with the features of one stretch of a dictionary. The fields
are those of SAEDashboard 0.8 (`store/records/saedashboard.py`); what an older batch lacks stays away when it is written
again.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from microtome.core.errors import Refusal
from microtome.store.records.saedashboard import Batch, Feature, read_batch
from microtome.store.whole import whole

BATCH = 128  # features a file


def batches(folder: Path) -> list[Path]:
    """The files of a folder, in the order of their numbers."""
    found = {path: re.fullmatch(r"batch-(\d+)\.json", path.name) for path in folder.glob("batch-*.json")}
    return [
        path for path, number in sorted(found.items(), key=lambda pair: int(pair[1][1]) if pair[1] else -1) if number
    ]


def write_batches(batch: Batch, folder: Path) -> list[Path]:
    """Write a dictionary's features, so many to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, features in enumerate(stretches(batch.features)):
        path = folder / f"batch-{number}.json"
        with whole(path) as partial:
            partial.write_text(batch.model_copy(update={"features": features}).model_dump_json(exclude_unset=True))
        written.append(path)
    return written


def stretches(features: Sequence[Feature]) -> Iterable[list[Feature]]:
    return (list(features[start : start + BATCH]) for start in range(0, len(features), BATCH))


def read_batches(folder: Path) -> Batch:
    """All features of a folder. Raises Refusal where it holds none, or those of two dictionaries."""
    read = [read_batch(path) for path in batches(folder)]
    if not read:
        raise Refusal(f"{folder} holds no batch-0.json; give the folder that SAEDashboard's runner wrote")
    names = {(batch.model_id, batch.source) for batch in read}
    if len(names) > 1:
        one, other = sorted("/".join(name) for name in names)[:2]
        raise Refusal(f"{folder} holds features of {one} and of {other}; put each into a folder of its own")
    return read[0].model_copy(update={"features": [feature for batch in read for feature in batch.features]})
