"""The command line: one file per command, one exit code per outcome.

0  done        1  a claim or check failed        2  wrong usage or input: one sentence on standard error
3  stopped, and can be resumed                   4  skipped, because something named is absent
"""

import errno
import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError
from cyclopts.config import Env, Toml
from pydantic import ValidationError

from microtome.core.errors import Absent, Refusal

DONE, FAILED, WRONG, STOPPED, SKIPPED = range(5)

app = App(
    name="microtome",
    help="Open a neural network: find its parts, say what each means, and prove by intervention what each does.",
    config=[Toml("microtome.toml", search_parents=True), Env("MICROTOME_", command=True)],
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # it has an exit code of its own here
)


# Named, not imported: their modules bring torch and transformers with them.
COMMANDS = {
    "dissect": "Find the parts of a model, say what each responds to, and measure how well they stand in for it.",
    "browse": "Look at the runs of a folder in a browser on this machine.",
    "map": "Draw a dictionary's components as points in a plane, near one another where they write nearly the same.",
    "explain": "Say what components mean, by rules or by a language model, and test it on text not seen before.",
    "check": "Prove on a model what each of its named sites means.",
    "convert": "Write a dictionary in another format, read it back and compare.",
    "compare": "Find which component of one dictionary is which of another, by what they write and when they fire.",
    "circuit": "Find which heads and MLPs, and which edges between them, do a task, and judge them on pairs held out.",
    "graph": "See what on a prompt wrote what the next token is read from, and test it by intervention.",
    "decompose": "Take a network's weights apart into parts, few of which matter on any input.",
    "dynamics": "Measure every checkpoint of a run, and find when it changes.",
    "patch": "Find at which layer and position two prompts differ in what decides the next token.",
    "plan": "Estimate the hours, the disk and the memory of a harvest and its training, before they are begun.",
    "eval": "Measure a dictionary beside a random one, a frozen encoder, principal components and the raw neurons.",
    "bench": "Time the product's own steps beside the floor that nothing could beat here.",
    "study": "Do a published result again, and say of each claim whether it holds here.",
}
PLACES = {"eval": "evaluate:evaluate", "map": "map:draw"}  # where the command's own name cannot be a function's
for command, words in COMMANDS.items():
    app.command(f"microtome.cli.{PLACES.get(command, f'{command}:{command}')}", name=command, help=words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return code_of(lambda: app(arguments, exit_on_error=False, print_error=False, result_action="return_value"))


def code_of(command: Callable[[], object]) -> int:
    """The exit code of a command; what a user can mend is said in one sentence, and nothing else."""
    try:
        result = command()
    except CycloptsError as error:
        return complain(f"{one_line(str(error))}; --help lists the arguments", WRONG)
    except ValidationError as error:
        return complain(sentence(error), WRONG)
    except Absent as absent:
        return complain(f"skipped: {one_line(str(absent))}", SKIPPED)
    except Refusal as refusal:
        return complain(one_line(str(refusal)), WRONG)
    except KeyboardInterrupt as stopped:
        return complain(str(stopped) or "stopped", STOPPED)
    except OSError as error:
        return complain(*of_the_system(error))
    return result if isinstance(result, int) else DONE if getattr(result, "ok", True) else FAILED


def sentence(error: ValidationError) -> str:
    """What pydantic found wrong first: of an argument of ours, or in a file of ours."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    asked = "an argument" if error.title == "Settings" else f"the {error.title.lower()}.json"
    return f"{asked} is wrong: {where} is {first['input']!r}, and {one_line(first['msg']).lower()}"


def of_the_system(error: OSError) -> tuple[str, int]:
    """What the operating system refused, and the exit code. A full disk is no mistake: the work can go on later."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}; free some space, and the same command with --resume goes on from here",
            STOPPED,
        )
    return f"{error.strerror or one_line(str(error))}{where}", WRONG


def one_line(text: str) -> str:
    return " ".join(text.split())


def complain(sentence: str, code: int) -> int:
    print(f"microtome: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
