"""The face of the package: sorted, true, and quick to import."""

import json
import subprocess
import sys

import pytest

import microtome

HEAVY = (
    "transformers",
    "fastapi",
    "uvicorn",
    "starlette",
    "pydantic",
    "cyclopts",
    "rich",
    "safetensors",
    "datasets",
    "huggingface_hub",
    "IPython",
)


def test_the_public_names_are_sorted_and_each_is_there() -> None:
    assert microtome.__all__ == sorted(microtome.__all__)
    assert len(set(microtome.__all__)) == len(microtome.__all__)


@pytest.mark.parametrize("name", microtome.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(microtome, name).__doc__


def test_nothing_public_is_left_out() -> None:
    names = {n for n, v in vars(microtome).items() if not n.startswith("_") and not isinstance(v, type(sys))}
    assert (names | set(microtome.LATER)) - {"LATER"} == set(microtome.__all__)


def test_a_name_that_is_not_there_is_said_so() -> None:
    with pytest.raises(AttributeError, match="module 'microtome' has no 'disect'"):
        _ = microtome.disect


def test_importing_brings_only_what_the_core_needs() -> None:
    program = """if True:
        import json, sys, time
        import torch
        before, started = set(sys.modules), time.perf_counter()
        import microtome
        print(json.dumps([time.perf_counter() - started, sorted(set(sys.modules) - before)]))
    """
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    seconds, modules = json.loads(out)
    print(f"import microtome takes {seconds:.2f} s beyond torch")
    brought = {name.split(".")[0] for name in modules}
    assert not brought & set(HEAVY), brought & set(HEAVY)
    assert brought - set(sys.stdlib_module_names) - {"_jaxtyping"} <= {
        "microtome",
        "jaxtyping",
        "einops",
        "numpy",
        "torch",
        "wadler_lindig",
        "typing_extensions",
    }
