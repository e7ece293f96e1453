"""What a dissection is asked for: which model, which site, how much text, how wide a dictionary."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from microtome.core.errors import Refusal


class Settings(BaseModel):
    """What to dissect, and how finely."""

    model_config = ConfigDict(extra="forbid")
    model: str
    into: Path
    site: str = "resid_post.2"
    text: list[str] = Field(default_factory=list)  # none: the standard library
    tokens: int = Field(2_000_000, gt=0)
    width: int = Field(4096, gt=0)
    k: int = Field(32, gt=0)
    dictionary: Path | None = None  # one that was trained elsewhere, in place of fitting one
    context: int | None = Field(None, gt=1)
    held_out: int = Field(250_000, gt=0)  # tokens to catalogue and measure on
    proposals: int = Field(200_000, gt=0)  # tokens of training text from which explanations are proposed
    epochs: int = Field(3, gt=0)
    batch: int = Field(2048, gt=0)
    lr: float = Field(4e-3, gt=0)
    seed: int = 0
    device: str = "cpu"

    def refuse_nonsense(self) -> None:
        if self.k > self.width:
            raise Refusal(
                f"k is {self.k}, more than the {self.width} components there would be; lower --k or raise --width"
            )
