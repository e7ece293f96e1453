"""SAEDashboard's batches: what its runner writes of some features, and Neuronpedia is fed from.

A folder of `batch-0.json`, `batch-1.json` and so on, each with the features of one stretch of a dictionary. The fields
are those of SAEDashboard 0.8; what an older batch lacks stays away when it is written again.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from microtome.core.errors import Refusal
from microtome.store.whole import whole

BATCH = 128  # features a file


class Activation(BaseModel):
    """A passage, the activation at each of its tokens, and why it is shown.

    `qualifying_token_index` is the token it was chosen for. `bin_contains` -1: it is one of the strongest; else it
    stands for the activations between `bin_min` and `bin_max`, which are that share of all.
    """

    model_config = ConfigDict(extra="allow")
    bin_min: float
    bin_max: float
    bin_contains: float
    tokens: list[str]
    values: list[float]
    qualifying_token_index: int

    @property
    def strongest(self) -> bool:
        return self.bin_contains == -1

    @property
    def bin(self) -> tuple[float, float, float]:
        return self.bin_min, self.bin_max, self.bin_contains


class Feature(BaseModel):
    """One component: tokens it promotes and suppresses, how often and how strongly it fires, and passages.

    Histograms are the middles of equal bars and their heights. `n_tokens_in_prompt` counts the token before the text.
    Fields that only their site shows (alignment with neurons, correlations) are kept and not read.
    """

    model_config = ConfigDict(extra="allow")
    feature_index: int
    neg_str: list[str] = []
    neg_values: list[float] = []
    pos_str: list[str] = []
    pos_values: list[float] = []
    frac_nonzero: float = 0.0
    freq_hist_data_bar_values: list[float] = []
    freq_hist_data_bar_heights: list[float] = []
    logits_hist_data_bar_heights: list[float] = []
    logits_hist_data_bar_values: list[float] = []
    neuron_alignment_indices: list[int] = []
    neuron_alignment_values: list[float] = []
    neuron_alignment_l1: list[float] = []
    correlated_neurons_indices: list[int] = []
    correlated_neurons_l1: list[float] = []
    correlated_neurons_pearson: list[float] = []
    correlated_features_indices: list[int] = []
    correlated_features_l1: list[float] = []
    correlated_features_pearson: list[float] = []
    decoder_weights_dist: list[float] = []
    vector: list[float] = []
    n_prompts_total: int = 0
    n_tokens_in_prompt: int = 0
    dataset: str = ""
    activations: list[Activation] = []


class Batch(BaseModel):
    """Features of one dictionary. `layer` and `sae_set` together are its name: layer 0 of "res-jb" is "0-res-jb"."""

    model_config = ConfigDict(extra="allow")
    model_id: str
    layer: int
    sae_set: str
    sae_id_suffix: str | None = None
    features: list[Feature]

    @property
    def source(self) -> str:
        """The dictionary's name as Neuronpedia has it."""
        return f"{self.layer}-{self.sae_set}" + (f"__{self.sae_id_suffix}" if self.sae_id_suffix else "")


def batches(folder: Path) -> list[Path]:
    """The files of a folder, in the order of their numbers."""
    found = {path: re.fullmatch(r"batch-(\d+)\.json", path.name) for path in folder.glob("batch-*.json")}
    return [
        path for path, number in sorted(found.items(), key=lambda pair: int(pair[1][1]) if pair[1] else -1) if number
    ]


def read_batch(path: Path) -> Batch:
    """Raises Refusal, naming the field, for a file that is no batch."""
    try:
        return Batch.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise Refusal(
            f"{path} is no batch of SAEDashboard: {where}: {first['msg'].lower()}; give its output folder"
        ) from None


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
