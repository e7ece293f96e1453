"""Activations on disk: aligned rows of several sites, in safetensors shards, with a manifest never ahead of the bytes.

The manifest is rewritten after each shard, atomically: whatever happens, what it lists is whole and can be used. A
harvest over many machines is a folder of parts, each a folder with a manifest of its own.

    manifest.json               sites, tokens, stored (the codec), filters, part [number, of], shards, rows, windows,
                                dropped (places, by filter), finished
    shard-NNNNN.safetensors     for each site NAME and each of the codec's tensors PART: `NAME/PART`
    part-NNNNN-of-NNNNN/        in place of these, where the work was divided
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.fit import Batch
from microtome.core.site import Site
from microtome.store.passes import batch_of
from microtome.store.quantised import BFLOAT16, Codec, Parts, codec_named
from microtome.store.whole import reading, whole

SCHEMA = "microtome/activations/2"
FIRST = "microtome/activations/1"  # one site, bfloat16; still read, no longer written


class Shard:
    """One file of rows. Its tensors are mapped: what is not asked for is not read."""

    def __init__(self, path: Path, manifest: dict, remedy: str):
        self.codec = codec_named(manifest["stored"])
        with reading(path, remedy), safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.parts: dict[str, Parts] = {site: {} for site in manifest["sites"]}
            for name, tensor in tensors.items():
                site, _, part = name.rpartition("/")
                self.parts[site or manifest["sites"][0]][part] = tensor  # the first schema named no site
            self.size = len(self.parts[manifest["sites"][0]]["x"])

    def __len__(self) -> int:
        return self.size

    def width(self, site: str) -> int:
        """Numbers a row of this site."""
        return self.parts[site]["x"].shape[1]

    def rows(self, site: str, which: Int[Tensor, "rows"]) -> Float[Tensor, "rows d"]:
        """These rows of a site, as float32."""
        return self.codec.decode(self.parts[site], which)


class Activations:
    """The activations harvested at some sites, from a folder or a folder of parts. Rows are float32 in batches.

    Batches of one site are tensors, of several `Rows`; `at` chooses among the sites. An unfinished harvest can be
    opened too: what its manifest lists is whole. A folder of parts is only opened when each of them has begun.
    """

    def __init__(self, folder: Path | str, sites: Iterable[Site | str] | None = None):
        """Raises Refusal for a folder without activations, or a damaged one, and NoSuchSite for a site it has not."""
        self.folder = Path(folder)
        self.manifests = manifests_in(self.folder)
        if not any(manifest["shards"] for manifest in self.manifests.values()):
            raise Refusal(f"{folder} holds no activations; harvest some first")
        self.manifest = next(iter(self.manifests.values()))
        self.sites = self._chosen(sites)
        remedy = f"delete {self.folder} and harvest again"
        self.shards = [Shard(f / s, m, remedy) for f, m in self.manifests.items() for s in m["shards"]]

    def _chosen(self, sites: Iterable[Site | str] | None) -> list[str]:
        held = self.manifest["sites"]
        wanted = held if sites is None else [s if isinstance(s, str) else s.name for s in sites]
        for site in wanted:
            if site not in held:
                raise NoSuchSite(f"{self.folder} holds no rows of {site!r}, only of {', '.join(held)}")
        return list(wanted)

    def at(self, *sites: Site | str) -> "Activations":
        """The same rows, of some of the sites."""
        return Activations(self.folder, sites)

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    @property
    def finished(self) -> bool:
        """Whether every part has been harvested to its end."""
        return all(manifest["finished"] for manifest in self.manifests.values())

    @property
    def widths(self) -> dict[str, int]:
        """Numbers a row of each site."""
        return {site: self.shards[0].width(site) for site in self.sites}

    @property
    def width(self) -> int:
        """How long a row is, of one site."""
        return self.widths[self._one]

    @property
    def _one(self) -> str:
        if len(self.sites) > 1:
            raise Refusal(f"these are rows of {', '.join(self.sites)}; choose one of them with `at`")
        return self.sites[0]

    def sample(self, rows: int, seed: int = 0) -> Float[Tensor, "rows d"]:
        """Rows of one site chosen at random, each at most once."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.rows(order[:rows])

    @cached_property
    def starts(self) -> Int[Tensor, "shards_and_end"]:
        """The number of each shard's first row, and that of all rows."""
        return torch.tensor([0, *map(len, self.shards)]).cumsum(0)

    def rows(self, which: Int[Tensor, "rows"]) -> Float[Tensor, "rows d"]:
        """These rows of one site. Raises Refusal where there are several."""
        return self.values(which)[self._one]

    def values(self, which: Int[Tensor, "rows"]) -> dict[str, Float[Tensor, "rows _"]]:
        """These rows of each site, as float32."""
        shard = torch.searchsorted(self.starts, which, right=True) - 1
        found = {site: torch.empty(len(which), width) for site, width in self.widths.items()}
        for i in shard.unique().tolist():
            here = (shard == i).nonzero()[:, 0]
            for site, x in found.items():
                x[here] = self.shards[i].rows(site, which[here] - self.starts[i])
        return found

    def batches(self, size: int, *, epochs: int = 1, seed: int = 0, start: int = 0) -> "Batches":
        """Batches of a global shuffle, anew each epoch, from batch number `start`. A last partial batch is dropped."""
        return Batches(self, size, epochs, seed, start)

    def batches_in(self, epochs: int, size: int) -> int:
        """How many full batches so many epochs hold."""
        return epochs * (len(self) // size)


class Batches(Iterator[Batch]):
    """Batches of a global shuffle of rows on disk. Each row comes once in an epoch, and each epoch has its own order.

    `state_dict` says where it is: another over the same rows that loads it goes on with the same batches.
    """

    def __init__(self, rows: Activations, size: int, epochs: int, seed: int, start: int):
        self.source, self.size, self.epochs, self.seed, self.index = rows, size, epochs, seed, start
        self.each = len(rows) // size
        if not self.each:
            raise Refusal(
                f"{len(rows)} rows are fewer than one batch of {size}; harvest more tokens or lower the batch"
            )
        self._order: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """How many are still to come."""
        return max(0, self.epochs * self.each - self.index)

    def __next__(self) -> Batch:
        if not len(self):
            raise StopIteration
        epoch, place = divmod(self.index, self.each)
        self.index += 1
        return batch_of(self.source.values(self._order_of(epoch)[place * self.size : (place + 1) * self.size]))

    def _order_of(self, epoch: int) -> Int[Tensor, "rows"]:
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._order = epoch, torch.randperm(len(self.source), generator=generator)
        return self._order[1]

    def state_dict(self) -> dict[str, Any]:
        """Which batch is next, and what the batches are made of."""
        return {"index": self.index, **self._made_of()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises Refusal for the state of other batches than these."""
        refuse_other(state, self._made_of())
        self.index = state["index"]

    def _made_of(self) -> dict[str, Any]:
        return {"rows": len(self.source), "size": self.size, "seed": self.seed, "sites": list(self.source.sites)}


def refuse_other(state: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises Refusal where a state was made under other arguments than those of here, naming the first."""
    for name, value in here.items():
        if state.get(name) != value:
            raise Refusal(f"that state has {name} {state.get(name)!r}, and here it is {value!r}; give the same")


# ---------------------------------------------------------------- manifests


def manifests_in(folder: Path) -> dict[Path, dict]:
    """The manifest of a harvest, or of each of its parts. Raises Refusal for parts that are missing or do not match."""
    if not (folder / "manifest.json").exists() and folder.is_dir():
        parts = {path: read_manifest(path) for path in sorted(folder.glob("part-*-of-*")) if path.is_dir()}
        if any(parts.values()):
            refuse_parts(folder, parts)
            return parts
    found = read_manifest(folder)
    return {folder: found} if found else {}


def refuse_parts(folder: Path, parts: Mapping[Path, dict]) -> None:
    """Raises Refusal where parts of a harvest are missing, or are not of one harvest."""
    begun = [manifest for manifest in parts.values() if manifest]
    of = begun[0]["part"][1]
    missing = sorted(set(range(of)) - {manifest["part"][0] for manifest in begun})
    if missing or len(begun) != of:
        raise Refusal(
            f"{folder} holds {len(begun)} of {of} parts, without {', '.join(map(str, missing)) or 'others'}; "
            "harvest those, or open the folder of one part"
        )
    for key in ("sites", "stored", "filters"):
        if any(manifest[key] != begun[0][key] for manifest in begun):
            raise Refusal(f"the parts of {folder} differ in {key}; harvest them alike")


def read_manifest(folder: Path) -> dict:
    """The manifest of a harvest, empty where there is none. Raises Refusal for one that is damaged or another kind."""
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    with reading(path, f"delete {folder} and harvest again"):
        found = json.loads(path.read_text())
    if found.get("schema") not in (SCHEMA, FIRST):
        raise Refusal(f"{path} has schema {found.get('schema')!r}; this version reads {SCHEMA!r}")
    if found["schema"] == FIRST:
        found |= {"sites": [found["site"]], "stored": BFLOAT16.name, "filters": ["Positions(start=1, stop=None)"]}
        found |= {"part": [0, 1], "dropped": {}}
    return found


def part_folder(folder: Path, shard: tuple[int, int] | None) -> Path:
    """Where part i of n is written. Raises Refusal for a part there cannot be."""
    if shard is None:
        return folder
    i, of = shard
    if not 0 <= i < of:
        raise Refusal(f"shard {i} of {of} is none; give (i, of) with i from 0 to of - 1")
    return folder / f"part-{i:05d}-of-{of:05d}"


# ---------------------------------------------------------------- writing


class ShardWriter:
    """Writes activations shard by shard. `done` counts the windows whose rows are safely on disk."""

    def __init__(self, folder: Path, about: dict, codec: Codec = BFLOAT16, rows_per_shard: int = 262_144):
        """`about` names at least the `sites`; what was begun about something else is refused."""
        self.folder, self.codec, self.rows_per_shard = folder, codec, rows_per_shard
        about = {"part": [0, 1], "filters": [], **about, "stored": codec.name}
        self.manifest = {
            "schema": SCHEMA, **about, "shards": [], "rows": 0, "windows": 0, "dropped": {}, "finished": False,
        }  # fmt: skip
        self.waiting: list[dict[str, Tensor]] = []
        self.rows_waiting = self.windows = 0
        self.dropped: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._take_up(about)

    def _take_up(self, about: dict) -> None:
        """Go on from what is there, if it was begun for the same thing."""
        found = read_manifest(self.folder)
        if not found:
            return
        if found["schema"] == FIRST:
            raise Refusal(f"{self.folder} was written by an older version and can be read only; choose another folder")
        if {key: found.get(key) for key in about} != about:
            raise Refusal(
                f"{self.folder} holds activations of something else; choose another folder, or delete that one"
            )
        self.manifest, self.windows, self.dropped = found, found["windows"], dict(found["dropped"])

    @property
    def done(self) -> int:
        """Windows whose rows are on disk."""
        return self.manifest["windows"]

    @property
    def finished(self) -> bool:
        """Whether the harvest has come to its end."""
        return self.manifest["finished"]

    def append(
        self, rows: Mapping[str, Float[Tensor, "rows _"]], windows: int, dropped: Mapping[str, int] | None = None
    ) -> None:
        """Add the rows of so many windows, by site, and what filters dropped of them."""
        encoded = {
            f"{site}/{part}": x.cpu() for site, each in rows.items() for part, x in self.codec.encode(each).items()
        }
        self.waiting.append(encoded)
        self.rows_waiting += len(next(iter(rows.values())))
        self.windows += windows
        for name, count in (dropped or {}).items():
            self.dropped[name] = self.dropped.get(name, 0) + count
        if self.rows_waiting >= self.rows_per_shard:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as a shard of its own, whatever its size."""
        if self.rows_waiting:
            name = f"shard-{len(self.manifest['shards']):05d}.safetensors"
            with whole(self.folder / name) as path:
                save_file({key: torch.cat([w[key] for w in self.waiting]) for key in self.waiting[0]}, path)
            self.manifest["shards"].append(name)
        if self.windows == self.done:
            return
        self.manifest["rows"] += self.rows_waiting
        self.manifest |= {"windows": self.windows, "dropped": dict(self.dropped)}
        self.waiting, self.rows_waiting = [], 0
        self._write_manifest()

    def _write_manifest(self) -> None:
        with whole(self.folder / "manifest.json") as path:
            path.write_text(json.dumps(self.manifest, indent=1))

    def finish(self) -> None:
        """Write what is waiting and mark the whole as finished. Raises Refusal where nothing was harvested."""
        self.flush()
        if not self.manifest["shards"]:
            raise Refusal("nothing was harvested: the text is empty, or shorter than one context")
        self.manifest["finished"] = True
        self._write_manifest()
