"""Dictionaries that are published on the Hugging Face hub, brought to this machine: the files that are needed alone."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from microtome.core.errors import Refusal

SAFE = ("*.json", "*.yaml", "*.safetensors", "*.npz")
PICKLED = ("*.pt", "*.pth")


def fetched(name: str, *, allow_pickle: bool = False) -> Path:
    """Where `owner/repository`, or a folder in it, lies after it was brought here.

    A folder is named after the repository: `google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`. Pickles
    are not even fetched unless they are allowed. Raises Refusal for a name that the hub does not have, or no hub.
    """
    owner, repository, *inside = name.strip("/").split("/")
    kinds = (*SAFE, *PICKLED) if allow_pickle else SAFE
    folder = "/".join(inside)
    try:
        root = snapshot_download(f"{owner}/{repository}", allow_patterns=patterns(folder, kinds))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Refusal(
            f"{name} is no path here, and the hub did not give it ({first}); give a folder, a file, or owner/repository"
        ) from None
    place = Path(root, folder)
    if not place.exists():
        raise Refusal(f"the hub's {owner}/{repository} has no {folder} with files of {', '.join(kinds)}")
    return place


def patterns(folder: str, kinds: tuple[str, ...]) -> list[str]:
    """What to fetch: these kinds of files in a folder and the descriptions above it, or one file by its name."""
    if not folder:
        return list(kinds)
    if Path(folder).suffix in (".pt", ".pth", ".npz", ".safetensors"):
        return [folder]
    above = [f"{parent}/config.json".removeprefix("./") for parent in Path(folder).parents]
    return [f"{folder}/{kind}" for kind in kinds] + above
