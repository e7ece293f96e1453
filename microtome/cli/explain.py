"""`microtome explain`: say what components mean, by rules or by a language model, and test what was said."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Annotated
from zlib import crc32

import torch
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from microtome.cli.figures import write_figures
from microtome.cli.progress import clock, short, watcher
from microtome.core.errors import Refusal
from microtome.explain.embedding import Embedder, Words
from microtome.explain.explainers import ByModel, ByRules, Explains
from microtome.explain.explaining import PASSAGES, Explaining, LeftOut, scorers
from microtome.explain.rules import Explainer
from microtome.language.ask import NoAnswer, OffTopic, Rehearsal, Speaker
from microtome.language.asker import Asker
from microtome.language.budget import Budget, BudgetReached
from microtome.language.endpoint import Endpoint
from microtome.language.in_process import InProcess, refuse_without_tokenizer
from microtome.language.kept import Kept
from microtome.store.catalog import Catalog, Column
from microtome.store.notes import Explanation, Notes
from microtome.store.records import Explained, Scores, Spent

RULES = "rules"
EXCHANGES = "exchanges.jsonl"  # every question asked and every answer, beside the catalogue, which may be made anew
STOPPED = 3  # the exit code of what can be gone on with
SCORERS = ("detection", "fuzzing")


def explain(
    run: Path,
    /,
    *,
    by: Annotated[str, Parameter(name="--with")] = RULES,
    model: str = "default",
    components: str = "0:100",
    score: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = SCORERS,
    passages: int = PASSAGES,
    budget: float = 1e6,
    embedder: str | None = None,
    dry_run: bool = False,
    seed: int = 0,
    device: str = "cpu",
    json: Path | None = None,
) -> Explained | int:
    """Explain components of a run, score each sentence on text that its explainer never saw, and note it for the page.

    Parameters
    ----------
    run
        A run folder with a catalogue, as `microtome dissect` leaves it.
    by
        Who explains: `rules` (no language model), the address of an OpenAI-compatible endpoint such as
        http://127.0.0.1:8080/v1 (its key, if any, in MICROTOME_API_KEY), or a model's folder or hub name.
    model
        The model's name at the endpoint.
    components
        Which: 0:100, 5,17,90, or all.
    score
        What sentences are tested by: detection (always), fuzzing, simulation, intruder, embedding.
    passages
        Passages of each kind (firing, silent, strongest, blind) that a sentence is tested on.
    budget
        Tokens that may be spent, read and written together. What was answered before costs nothing.
    embedder
        The name of an embedding model at the endpoint, for `--score embedding` (default: counts of words, no model).
    dry_run
        Ask nothing and write nothing: print how many questions there would be, and how many tokens at the most.
    seed
        Of everything random.
    device
        Where a model in this process runs.
    json
        Also write the figures to this file.
    """
    refuse_few(passages)
    catalog = Catalog(run / "catalog")
    chosen = numbers(components, len(catalog))
    asker = None if by == RULES else asking(by, model, run, int(budget), device, dry_run)
    work = explaining(catalog, asker, seed, passages, score, embedding_by(by, embedder))
    if dry_run:
        return rehearsed(work, catalog, chosen, asker)
    result = noted(work, catalog, chosen, asker, run)
    write_figures(result, json)
    show(result, run)
    if result.stopped:
        print(f"microtome: {result.stopped}", file=sys.stderr)
        return STOPPED
    return result


# ---------------------------------------------------------------- what was asked for


def refuse_few(passages: int) -> None:
    if passages < 5:
        raise Refusal(f"--passages {passages} is too few to tell anything by; give at least 5")


def numbers(words: str, count: int) -> list[int]:
    """Component numbers from "all", "0:100" or "5,17,90"."""
    if words == "all":
        return list(range(count))
    try:
        if ":" in words:
            start, stop = (int(part) if part else None for part in words.split(":"))
            found = list(range(count)[slice(start, stop)])
        else:
            found = [int(part) for part in words.split(",")]
    except ValueError:
        raise Refusal(f"--components {words!r} is no choice; give all, a range such as 0:100, or 5,17,90") from None
    wrong = [n for n in found if not 0 <= n < count]
    if wrong or not found:
        raise Refusal(f"--components {words!r} names {wrong[0] if wrong else 'none'}; there are 0 to {count - 1}")
    return found


def asking(by: str, model: str, run: Path, budget: int, device: str, dry_run: bool) -> Asker:
    """One who asks the model that was named, or, in a dry run, nobody."""
    if dry_run:
        return Asker(Rehearsal(), Budget(sys.maxsize))
    return Asker(speaker_at(by, model, device), Budget(budget), Kept(run / EXCHANGES))


def speaker_at(by: str, model: str, device: str) -> Speaker:
    return Endpoint(by, model) if is_address(by) else in_process(by, device)


def is_address(by: str) -> bool:
    return by.startswith(("http://", "https://"))


def in_process(name: str, device: str) -> InProcess:
    """A model of transformers', continued by this package's own `generate`."""
    from microtome.core.inputs import Tokens
    from microtome.models.generate import generate
    from microtome.models.load import load

    loaded = load(name, device=device, verify=False)
    tokenizer = refuse_without_tokenizer(name, loaded.tokenizer)

    def continues(ids: list[int], most: int, temperature: float) -> list[int]:
        given = Tokens.of([ids]).to(loaded.device)
        stop, generator = loaded.tokenizer.eos_token_id, seeded(ids, loaded.device)
        said = generate(loaded, given, tokens=most, temperature=temperature, stop=stop, generator=generator)
        return said.ids[0, len(ids) :].tolist()

    return InProcess(Path(name).name, tokenizer, continues, loaded.context)


def embedding_by(by: str, embedder: str | None) -> Embedder:
    if embedder is None:
        return Words()
    if not is_address(by):
        raise Refusal(f"--embedder {embedder!r} needs an endpoint; give its address by --with, or leave --embedder out")
    return Endpoint(by, embedder)


def explaining(
    catalog: Catalog, asker: Asker | None, seed: int, passages: int, score: Sequence[str], embedder: Embedder
) -> Explaining:
    rules = Explainer.of(catalog, seed)
    explains: Explains = ByRules(rules) if asker is None else ByModel(asker, rules)
    return Explaining(rules, explains, scorers(score, embedder, catalog.vocabulary, explains), passages)


def columns(catalog: Catalog, chosen: Sequence[int]) -> Iterator[tuple[int, Column]]:
    return ((number, catalog.column(number)) for number in chosen)


def seeded(ids: Sequence[int], device: torch.device) -> torch.Generator:
    """One question always draws the same answer."""
    return torch.Generator(device).manual_seed(crc32(repr(list(ids)).encode()))


# ---------------------------------------------------------------- what is done


def rehearsed(work: Explaining, catalog: Catalog, chosen: Sequence[int], asker: Asker | None) -> int:
    """Meet every prompt, ask nobody, write nothing, and say what it would cost at the most."""
    with watcher().stage("rehearse", len(chosen), "components") as advance:
        for done, _ in enumerate(work.explain(columns(catalog, chosen)), 1):
            advance(done)
    spent = asker.budget if asker else Budget(0)
    print(
        f"{len(chosen)} components: {spent.requests:,} questions, at most {spent.spent:,} tokens "
        f"({spent.prompt_tokens:,} read, {spent.answer_tokens:,} written); nothing was asked and nothing written"
    )
    return 0


def noted(work: Explaining, catalog: Catalog, chosen: Sequence[int], asker: Asker | None, run: Path) -> Explained:
    """Explain and note one component after another. What ends the work early leaves the notes that were made."""
    notes, begun, stopped = Notes(catalog.folder / "notes.sqlite"), time.monotonic(), ""
    found: list[Explanation] = []
    left: Counter[str] = Counter()
    try:
        with watcher().stage("explain", len(chosen), "components") as advance:
            for done, one in enumerate(work.explain(columns(catalog, chosen)), 1):
                if isinstance(one, LeftOut):
                    left[one.reason] += 1
                else:
                    notes.put([one])
                    found.append(one)
                advance(done)
    except (BudgetReached, NoAnswer, OffTopic) as reason:
        stopped = str(reason)
    result = Explained(
        method=work.explains.name, asked=len(chosen), explained=len(found), left_out=dict(left), scores=scored(found),
        spent=spent(asker), stopped=stopped, seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip
    result.write(run)
    return result


def scored(found: Sequence[Explanation]) -> dict[str, Scores]:
    """Each scorer over all components that it could score."""
    each: dict[str, list[dict[str, float]]] = {}
    for one in found:
        for name, grade in one.evidence["grades"].items():
            each.setdefault(name, []).append(grade)
    return {
        name: Scores(median=median(g["value"] for g in grades), mean=fmean(g["value"] for g in grades),
                     chance=grades[0]["chance"], components=len(grades))
        for name, grades in each.items()
    }  # fmt: skip


def spent(asker: Asker | None) -> Spent | None:
    if asker is None:
        return None
    budget = asker.budget
    return Spent(requests=budget.requests, recalled=budget.recalled, prompt_tokens=budget.prompt_tokens,
                 answer_tokens=budget.answer_tokens)  # fmt: skip


def show(result: Explained, run: Path) -> None:
    """The figures on one screen."""
    console = Console()
    table = Table(title=f"{result.explained} of {result.asked} components explained by {result.method}",
                  title_justify="left")  # fmt: skip
    for column in ("scorer", "median", "mean", "chance"):
        table.add_column(column, justify="left" if column == "scorer" else "right")
    for name, scores in result.scores.items():
        table.add_row(name, f"{scores.median:.3f}", f"{scores.mean:.3f}", f"{scores.chance:.2f}")
    console.print(table)
    for reason, count in result.left_out.items():
        console.print(f"{count} left out: {reason}", markup=False, highlight=False, soft_wrap=True)
    if result.spent:
        used = result.spent
        console.print(
            f"{used.requests} questions asked, {used.recalled} answers kept from before; "
            f"{short(used.prompt_tokens)} tokens read, {short(used.answer_tokens)} written", highlight=False
        )  # fmt: skip
    console.print(f"{clock(result.seconds)}; look at them: microtome browse {run}", markup=False, highlight=False,
                  soft_wrap=True)  # fmt: skip
