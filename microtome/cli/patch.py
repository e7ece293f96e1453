"""`microtome patch`: at which layer and position does what tells a clean prompt from a corrupt one stand?"""

from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from microtome.circuits.patching import denoise, noise, recovered
from microtome.cli.figures import write_figures
from microtome.cli.finished import finished
from microtome.core.effects import Effects
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS, logit_diff
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.records import Patched


def patch(
    model: str,
    /,
    *,
    clean: str,
    corrupt: str,
    right: str,
    wrong: str,
    into: Path,
    sites: str = "resid_post",
    direction: Literal["denoise", "noise"] = "denoise",
    rows: int = 256,
    device: str = "cpu",
    json: Path | None = None,
) -> Patched:
    """Run one of two prompts, put in at one layer and position at a time what was there in the other, and measure.

    The measure is the logit of the right token minus that of the wrong one at the last position. A table of shares is
    printed, and written with all figures.

    Parameters
    ----------
    model
        A folder in Hugging Face's format, a hub name, or `specimen` (ships with the package).
    clean
        The prompt after which `right` is right.
    corrupt
        A prompt of as many tokens after which `wrong` is right.
    right
        A text of one token, with the space that it begins with.
    wrong
        Likewise.
    into
        The folder to write patch.json to.
    sites
        The kind of place: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, ...
    direction
        denoise patches the clean run into the corrupt one; noise the corrupt run into the clean one.
    rows
        Prompts in one forward pass, at most.
    device
        Where the model runs.
    json
        Also write the figures to this file.
    """
    loaded = load(model, device=device)
    prompts = [Tokens.of([loaded.encode(text)]).to(loaded.device) for text in (clean, corrupt)]
    measure = logit_diff(answer(loaded, right), answer(loaded, wrong))
    places = loaded.sites(f"{sites}.*")
    run, (here, there) = (denoise, prompts[::-1]) if direction == "denoise" else (noise, prompts)
    found = run(loaded, prompts[0], prompts[1], measure, places, by=("pos",), rows=rows)
    with torch.no_grad():
        goal = measure(loaded.run(there, read=[LOGITS]))
    values = [float(goal), float(found.before)] if direction == "denoise" else [float(found.before), float(goal)]
    record = Patched(
        model=model, site=sites, direction=direction, clean=clean, corrupt=corrupt, right=right, wrong=wrong,
        clean_value=values[0], corrupt_value=values[1], measure=measure.label, sites=[s.name for s in places],
        tokens=said(loaded, here), effect=grid(found, len(places), found.moved.mean(1)),
        share=grid(found, len(places), recovered(found, goal)),
    )  # fmt: skip
    record.write(into)
    arguments = {
        "clean": clean, "corrupt": corrupt, "right": right, "wrong": wrong, "sites": sites, "direction": direction,
    }  # fmt: skip
    finished("patch", model, arguments, into, site=sites)
    write_figures(record, json)
    show(record)
    return record


def answer(model: HookedModel, text: str) -> int:
    """The one token of an answer."""
    begun = model.encode("a")
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"] if model.tokenizer is not None else begun
    if len(ids) != 1:
        raise Refusal(f"the answer {text!r} is {len(ids)} tokens; give a text of one token, with its leading space")
    return int(ids[0])


def said(model: HookedModel, prompt: Tokens) -> list[str]:
    return [model.tokenizer.decode([token]) for token in prompt.ids[0].tolist()]


def grid(found: Effects, sites: int, values: torch.Tensor) -> list[list[float]]:
    """Site by site, as the cells were made."""
    return values.view(sites, len(found) // sites).tolist()


# ---------------------------------------------------------------- on one screen


def show(record: Patched) -> None:
    """One line for each position, one column for each layer, as positions are mostly more."""
    console = Console()
    console.print(
        f"{record.model}, {record.site}: clean {record.clean_value:+.3f}, corrupt {record.corrupt_value:+.3f}; "
        f"the share that each patch goes of the way ({record.direction})",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table(box=None)
    table.add_column("position")
    for site in record.sites:
        table.add_column(site.rpartition(".")[2], justify="right")
    for i, token in enumerate(record.tokens):
        table.add_row(f"{i} {token!r}", *(f"{round(row[i], 2) + 0.0:.2f}" for row in record.share))
    console.print(table, markup=False, highlight=False)
