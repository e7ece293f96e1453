"""Activations on disk: rows of one site, in safetensors shards, with a manifest that is never ahead of the bytes.

The manifest is rewritten after each shard, atomically: whatever happens, what it lists is whole and can be used.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.store.whole import reading, whole

SCHEMA = "microtome/activations/1"


class Activations:
    """The activations harvested at one site. Rows are bfloat16 on disk and float32 in batches.

    An unfinished harvest can be opened too: what its manifest lists is whole.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if not self.manifest.get("shards"):
            raise Refusal(f"{folder} holds no activations; harvest some first")
        self.shards = [self._open(name) for name in self.manifest["shards"]]

    def _open(self, name: str) -> Float[Tensor, "rows d"]:
        path = self.folder / name
        with reading(path, f"delete {self.folder} and harvest again"), safe_open(path, "pt") as file:
            return file.get_tensor("x")

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    @property
    def width(self) -> int:
        return self.shards[0].shape[1]

    def sample(self, rows: int, seed: int = 0) -> Float[Tensor, "rows d"]:
        """Rows chosen at random, each at most once."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.rows(order[:rows])

    def rows(self, which: Tensor) -> Float[Tensor, "rows d"]:
        """These rows, as float32."""
        found = torch.empty(len(which), self.width, dtype=self.shards[0].dtype)
        starts = torch.tensor([0, *map(len, self.shards)]).cumsum(0)
        shard = torch.searchsorted(starts, which, right=True) - 1
        for i in shard.unique().tolist():
            here = shard == i
            found[here] = self.shards[i][which[here] - starts[i]]
        return found.float()

    def batches(
        self, size: int, *, epochs: int = 1, seed: int = 0, start: int = 0
    ) -> Iterator[Float[Tensor, "size d"]]:
        """Batches of a global shuffle, anew each epoch, from batch number `start`. A last partial batch is dropped."""
        each = len(self) // size
        if not each:
            raise Refusal(
                f"{len(self)} rows are fewer than one batch of {size}; harvest more tokens or lower the batch"
            )
        for epoch in range(start // each, epochs):
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
            for i in range(start % each if epoch == start // each else 0, each):
                yield self.rows(order[i * size : (i + 1) * size])

    def batches_in(self, epochs: int, size: int) -> int:
        return epochs * (len(self) // size)


def read_manifest(folder: Path) -> dict:
    """The manifest of a harvest, empty where there is none. Raises Refusal for one that is damaged or another kind."""
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    with reading(path, f"delete {folder} and harvest again"):
        found = json.loads(path.read_text())
    if found.get("schema") != SCHEMA:
        raise Refusal(f"{path} has schema {found.get('schema')!r}; this version reads {SCHEMA!r}")
    return found


class ShardWriter:
    """Writes activations shard by shard. `done` counts the windows whose rows are safely on disk."""

    def __init__(self, folder: Path, about: dict, rows_per_shard: int = 262_144):
        self.folder, self.rows_per_shard = folder, rows_per_shard
        self.manifest = {"schema": SCHEMA, **about, "shards": [], "rows": 0, "windows": 0, "finished": False}
        self.waiting: list[Tensor] = []
        self.windows = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._take_up(about)

    def _take_up(self, about: dict) -> None:
        """Go on from what is there, if it was begun for the same thing."""
        found = read_manifest(self.folder)
        if not found:
            return
        if {key: found.get(key) for key in about} != about:
            raise Refusal(
                f"{self.folder} holds activations of something else; choose another folder, or delete that one"
            )
        self.manifest, self.windows = found, found["windows"]

    @property
    def done(self) -> int:
        return self.manifest["windows"]

    @property
    def finished(self) -> bool:
        return self.manifest["finished"]

    def append(self, rows: Float[Tensor, "rows d"], windows: int) -> None:
        """Add the rows of so many windows."""
        self.waiting.append(rows.to("cpu", torch.bfloat16))
        self.windows += windows
        if sum(map(len, self.waiting)) >= self.rows_per_shard:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as a shard of its own, whatever its size."""
        if not self.waiting:
            return
        rows = torch.cat(self.waiting)
        name = f"shard-{len(self.manifest['shards']):05d}.safetensors"
        with whole(self.folder / name) as path:
            save_file({"x": rows}, path)
        self.waiting = []
        self.manifest["shards"].append(name)
        self.manifest["rows"] += len(rows)
        self.manifest["windows"] = self.windows
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
