"""batch-0.json and so on: features of one stretch of a dictionary, as SAEDashboard 0.8 writes them."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from microtome.core.errors import Refusal


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
