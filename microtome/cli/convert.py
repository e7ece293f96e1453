"""`microtome convert`: a dictionary in one format, written in another, read back and compared."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from microtome.cli.figures import write_figures
from microtome.cli.published import TARGETS, Published, convert_published
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.dictionaries.formats.format import SiteUnknown
from microtome.dictionaries.formats.registry import find_all, format_named, write
from microtome.dictionaries.formats.self_check import Found, width_read

SAME = 1e-5  # relative: within so much of what was read must what was written be, on a typical row
ROWS = 32


class Converted(BaseModel):
    """What was read and written. The differences between the two are relative, of the median and the worst random row.

    Where a weight was rounded, a latent whose threshold a row just meets may fall silent: that moves the worst row
    alone. `ok` is what the median row says.
    """

    model_config = ConfigDict(extra="forbid")
    source: str
    found: str
    written: str
    into: str
    dictionaries: int
    said: list[str]
    difference: float
    worst_difference: float
    ok: bool


def convert(
    source: str,
    into: Path,
    /,
    *,
    to: str,
    site: str | None = None,
    allow_pickle: bool = False,
    seed: int = 0,
    json: Path | None = None,
) -> Converted | Published:
    """Read a dictionary in any known format, write it in another, read that back and compare.

    Exits with 1 if the two differ. What is known of the components is written for others, and read from them, too: a
    run's catalogue with `--to neuronpedia` or `--to saedashboard`, and a folder of either with `--to run`.

    Parameters
    ----------
    source
        A folder, a file, or a name on the hub: owner/repository, and a folder in it.
    into
        The folder to write; it must be empty or new.
    to
        The format: microtome, saelens, sparsify, dictionary_learning, gemma_scope, gemma_scope_2, llama_scope,
        qwen_scope, openai, circuit_tracer or circuit_tracer_clt; or neuronpedia, saedashboard, run.
    site
        Where the dictionary belongs, if its files do not say; or which one, where there are several.
    allow_pickle
        Read files of torch.save: tensors and plain values, and nothing that runs.
    seed
        Of the rows on which the two are compared.
    json
        Also write what was found to this file.
    """
    if to in TARGETS:
        published = convert_published(Path(source), into, to)
        write_figures(published, json)
        return published
    format_named(to)
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise Refusal(f"{into} is not an empty folder; give another, so that nothing is overwritten")
    read = find_all(source, site=site, allow_pickle=allow_pickle)
    write([found.dictionary for found in read], into, to)
    again, remarks = read_back(into, read)
    rows = [differences(a.dictionary, b.dictionary, seed) for a, b in zip(read, again, strict=True)]
    found = torch.cat(rows)
    converted = Converted(
        source=source, found=read[0].format, written=to, into=str(into), dictionaries=len(read),
        said=[line for one in read for line in one.lines] + remarks, difference=found.median().item(),
        worst_difference=found.max().item(), ok=found.median().item() <= SAME,
    )  # fmt: skip
    show(converted)
    write_figures(converted, json)
    return converted


def read_back(folder: Path, wanted: list[Found]) -> tuple[list[Found], list[str]]:
    """What was written, in the order of what was read, and what a reader of it must know."""
    try:
        found, remarks = find_all(folder, allow_pickle=True), []
    except SiteUnknown:
        site = str(wanted[0].dictionary.reads[0])
        found = find_all(folder, site=site, allow_pickle=True)
        remarks = [f"this format does not say where a dictionary belongs; read it with --site {site}"]
    by_sites = {sites(f.dictionary): f for f in found}
    missing = [f for f in wanted if sites(f.dictionary) not in by_sites]
    if missing or len(found) != len(wanted):
        moved = ", ".join(str(f.dictionary.reads[0]) for f in missing) or "several at one site"
        raise Refusal(
            f"{folder} was written, and does not hold what was read: {moved}; write them one by one, with --site"
        )
    return [by_sites[sites(f.dictionary)] for f in wanted], remarks


def sites(dictionary: Dictionary) -> tuple[str, ...]:
    return tuple(str(site) for site in (*dictionary.reads, *dictionary.writes))


@torch.no_grad()
def differences(before: Dictionary, after: Dictionary, seed: int) -> Tensor:
    """|a - b| / |a| for random rows, of codes and of reconstructions, whichever is larger."""
    lead = () if len(before.reads) == 1 else (len(before.reads),)
    x = torch.randn(*lead, ROWS, width_read(before), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before, after = before.double(), after.double()
    codes = apart(before.encode(x).dense(), after.encode(x).dense())
    return torch.maximum(codes, apart(before.reconstruct(x), after.reconstruct(x)))


def apart(a: Tensor, b: Tensor) -> Tensor:
    """One number a row; a leading axis of sites counts as part of the row."""
    a, b = (x.transpose(0, -2).flatten(1) for x in (a, b))
    size = a.norm(dim=1)
    return (a - b).norm(dim=1) / torch.where(size > 0, size, torch.ones_like(size))


def show(converted: Converted) -> None:
    for line in converted.said:
        print(line)
    verdict = "the same" if converted.ok else "NOT the same"
    print(
        f"written to {converted.into} as {converted.written} and read back: {verdict}, to {converted.difference:.0e} "
        f"relative on a typical row, {converted.worst_difference:.0e} on the worst of {ROWS}"
    )
