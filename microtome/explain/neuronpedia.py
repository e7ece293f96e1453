"""Neuronpedia's export: the folder that its site is filled from, and that it offers for download.

    MODEL/LAYER-SET/
      model.jsonl, release.jsonl, sourceset.jsonl, source.jsonl      a line each, of what the features belong to
      features/batch-0.jsonl.gz                                      a line for each feature
      activations/batch-0.jsonl.gz                                   a line for each passage, by feature
      explanations/batch-0.jsonl.gz                                  a line for each sentence, by feature

The same facts as in SAEDashboard's batches (`saedashboard.py`), by other names.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from microtome.core.errors import Refusal
from microtome.explain.saedashboard import stretches
from microtome.store.records.saedashboard import Activation, Batch, Feature
from microtome.store.whole import whole

ACTIVATION = {  # theirs: a batch's
    "tokens": "tokens", "values": "values", "binMin": "bin_min", "binMax": "bin_max", "binContains": "bin_contains",
    "qualifyingTokenIndex": "qualifying_token_index", "dfaValues": "dfa_values", "dfaMaxValue": "dfa_maxValue",
    "dfaTargetIndex": "dfa_targetIndex",
}  # fmt: skip
OF_THE_SOURCE = {"num_prompts": "n_prompts_total", "num_tokens_in_prompt": "n_tokens_in_prompt", "dataset": "dataset"}
NOT_OF_A_FEATURE = {"feature_index", "activations", *OF_THE_SOURCE.values()}


@dataclass(frozen=True)
class Sentence:
    """What was said of a feature, by which method and model."""

    feature: int
    text: str
    method: str = ""
    model: str = ""


@dataclass(frozen=True)
class Export:
    """A dictionary as Neuronpedia has it."""

    batch: Batch
    sentences: tuple[Sentence, ...] = ()


def write_export(export: Export, into: Path, *, creator: str = "microtome", created: str) -> Path:
    """Write the export below `into` and return its folder. `created` is a date, as ISO has it."""
    batch, about = export.batch, {"creatorId": creator, "createdAt": created}
    folder = into / batch.model_id / batch.source
    for name, line in headers(batch, creator, about).items():
        write_lines(folder / f"{name}.jsonl", [line])
    key = {"modelId": batch.model_id, "layer": batch.source}
    said = by_feature(export.sentences)
    for number, features in enumerate(stretches(batch.features)):
        rows = {
            "features": [feature_line(f) | key | about for f in features],
            "activations": [a | key | about for f in features for a in activation_lines(f, batch)],
            "explanations": [s | key | about for f in features for s in sentence_lines(said[f.feature_index], batch)],
        }
        for name, lines in rows.items():
            write_lines(folder / name / f"batch-{number}.jsonl.gz", lines)
    return folder


def headers(batch: Batch, creator: str, about: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The files of one line: what the features belong to."""
    first = batch.features[0] if batch.features else Feature(feature_index=0)
    named = {"creatorName": creator, "visibility": "PUBLIC", **about}
    return {
        "model": {"id": batch.model_id, "displayName": batch.model_id, "instruct": False, **about},
        "release": {"name": batch.sae_set, "description": batch.sae_set, "urls": [], **named},
        "sourceset": {
            "modelId": batch.model_id, "name": batch.sae_set, "description": batch.sae_set,
            "releaseName": batch.sae_set, **named,
        },
        "source": {
            "id": batch.source, "modelId": batch.model_id, "setName": batch.sae_set, "hasDashboards": True, **about,
            **{theirs: getattr(first, ours) for theirs, ours in OF_THE_SOURCE.items()},
        },
    }  # fmt: skip


def feature_line(feature: Feature) -> dict[str, Any]:
    held = feature.model_dump(exclude=NOT_OF_A_FEATURE)
    most = max((max(a.values, default=0.0) for a in feature.activations), default=0.0)
    return {"index": str(feature.feature_index), "maxActApprox": most, "hasVector": bool(feature.vector), **held}


def activation_lines(feature: Feature, batch: Batch) -> Iterator[dict[str, Any]]:
    """Every passage, with an id that its place among the features gives it."""
    for number, activation in enumerate(feature.activations):
        held, values = activation.model_dump(), activation.values
        line = {theirs: held[ours] for theirs, ours in ACTIVATION.items() if ours in held}
        most = max(values, default=0.0)
        yield {
            "id": identity(batch, feature.feature_index, number), "index": str(feature.feature_index),
            "maxValue": most, "maxValueTokenIndex": values.index(most) if values else 0,
            "minValue": min(values, default=0.0), **line,
        }  # fmt: skip


def sentence_lines(said: Sequence[Sentence], batch: Batch) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(said):
        yield {
            "id": identity(batch, one.feature, f"said {number}"), "index": str(one.feature), "description": one.text,
            "typeName": one.method, "explanationModelName": one.model, "authorId": "microtome",
        }  # fmt: skip


def identity(batch: Batch, feature: int, number: object) -> str:
    """A name of 25 letters and digits that no other row has."""
    return "m" + sha256(f"{batch.model_id}/{batch.source}/{feature}/{number}".encode()).hexdigest()[:24]


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with whole(path) as partial:  # mtime 0: the same lines are the same bytes
        partial.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


# ---------------------------------------------------------------- reading


def read_export(folder: Path) -> Export:
    """Read one dictionary's folder. Raises Refusal for a folder that is none, or a line that cannot be read."""
    if not (folder / "features").is_dir():
        raise Refusal(
            f"{folder} has no folder features; give one dictionary's of Neuronpedia's export: MODEL/LAYER-SET"
        )
    source = next(iter(lines(folder / "source.jsonl")), {}) if (folder / "source.jsonl").exists() else {}
    passages: dict[str, list[Activation]] = defaultdict(list)
    for line in gathered(folder, "activations"):
        held = {ours: line[theirs] for theirs, ours in ACTIVATION.items() if line.get(theirs) is not None}
        passages[str(line["index"])].append(Activation(**held))
    of_all = {ours: source[theirs] for theirs, ours in OF_THE_SOURCE.items() if source.get(theirs) is not None}
    features, name, model = [], folder.name, ""
    for line in gathered(folder, "features"):
        known = {k: v for k, v in line.items() if k in Feature.model_fields and v is not None}
        index = str(line["index"])
        features.append(Feature(feature_index=int(index), activations=passages[index], **known, **of_all))
        name, model = line["layer"], line["modelId"]
    if not features:
        raise Refusal(f"{folder / 'features'} holds no feature; its files are batch-0.jsonl.gz and so on")
    layer, _, rest = str(name).partition("-")
    batch = Batch(model_id=model, layer=int(layer) if layer.isdigit() else 0, sae_set=rest or layer, features=features)
    return Export(batch, tuple(sentences(folder)))


def sentences(folder: Path) -> Iterator[Sentence]:
    for line in gathered(folder, "explanations"):
        said = line.get("typeName") or "", line.get("explanationModelName") or ""
        yield Sentence(int(line["index"]), line["description"], *said)


def by_feature(said: Iterable[Sentence]) -> defaultdict[int, list[Sentence]]:
    found: defaultdict[int, list[Sentence]] = defaultdict(list)
    for one in said:
        found[one.feature].append(one)
    return found


def gathered(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The lines of all files of a kind, in the order of their numbers."""
    paths = [*(folder / name).glob("batch-*.jsonl*")]
    for path in sorted(paths, key=lambda path: int(path.name.removeprefix("batch-").split(".")[0])):
        yield from lines(path)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Each line of a file, compressed or not. Raises Refusal, with its number, for one that is not JSON."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError:
                raise Refusal(f"{path}, line {number}, is not JSON; fetch the file again") from None
