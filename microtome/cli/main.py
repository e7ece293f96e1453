"""The command line: one file per command, one exit code per outcome.

    0  done        1  a claim or check failed        2  wrong usage or input: one sentence on standard error
    3  stopped, and can be resumed                   4  skipped, because something named is absent
"""

import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError
from cyclopts.config import Env, Toml

from microtome.core.errors import Refusal

DONE, FAILED, WRONG, STOPPED, SKIPPED = range(5)

app = App(
    name="microtome",
    help="Open a neural network: find its parts, say what each means, and prove by intervention what each does.",
    config=[Toml("microtome.toml", search_parents=True), Env("MICROTOME_", command=True)],
    version_flags=["--version"],
)


def register() -> None:
    """Attach the commands. Their modules import torch and transformers, so `--help` alone does not wait for them."""
    for name in ("dissect", "browse", "check", "bench"):
        app.command(f"microtome.cli.{name}:{name}", name=name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and exit with its code."""
    register()
    sys.exit(code_of(lambda: app(arguments, exit_on_error=False, print_error=True, result_action="return_value")))


def code_of(command: Callable[[], object]) -> int:
    """The exit code of a command; what a user can mend is said in one sentence, and nothing else."""
    try:
        result = command()
    except CycloptsError:
        return WRONG
    except Refusal as refusal:
        return complain(str(refusal), WRONG)
    except KeyboardInterrupt:
        return complain("stopped; the same command with --resume goes on from here", STOPPED)
    except OSError as error:
        return complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", WRONG)
    return result if isinstance(result, int) else DONE if getattr(result, "ok", True) else FAILED


def complain(sentence: str, code: int) -> int:
    print(f"microtome: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
