"""One exit code per outcome; what is wrong is said in one sentence on standard error."""

from io import StringIO

import pytest
from rich.console import Console

from microtome.cli import main as command_line
from microtome.cli.main import DONE, FAILED, STOPPED, WRONG, code_of, main
from microtome.cli.progress import Live, Plain, clock, short
from microtome.core.errors import NoSuchSite, Refusal


class Judged:
    def __init__(self, ok: bool):
        self.ok = ok


def raising(error: BaseException) -> object:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (lambda: None, DONE, ""),
        (lambda: Judged(True), DONE, ""),
        (lambda: Judged(False), FAILED, ""),
        (lambda: 4, 4, ""),
        (raising(Refusal("no such thing;\n  try another")), WRONG, "microtome: no such thing; try another\n"),
        (raising(NoSuchSite.named("x", [])), WRONG, "microtome: no site 'x'; model.sites('*') lists them\n"),
        (raising(KeyboardInterrupt()), STOPPED, "microtome: stopped\n"),
        (raising(PermissionError(13, "Permission denied", "/x")), WRONG, "microtome: Permission denied (/x)\n"),
        (
            raising(OSError(28, "No space left on device", "/x")), STOPPED,
            "microtome: the disk is full (/x); free some space, and the same command with --resume goes on from here\n",
        ),
    ],
)  # fmt: skip
def test_every_outcome_has_its_code_and_its_sentence(
    command: object, code: int, said: str, capsys: pytest.CaptureFixture
) -> None:
    assert code_of(command) == code and capsys.readouterr().err == said


@pytest.mark.parametrize(
    "arguments", [["dissct"], ["dissect"], ["dissect", "m", "--what"], ["dissect", "m", "--width", "x"]]
)
def test_wrong_usage_is_two_and_one_line(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == WRONG
    said = capsys.readouterr().err
    assert said.startswith("microtome: ") and said.count("\n") == 1 and said.endswith("; --help lists the arguments\n")


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        code_of(raising(ZeroDivisionError()))


def test_help_lists_every_argument_with_its_unit_and_default(capsys: pytest.CaptureFixture) -> None:
    assert main(["dissect", "--help"]) == DONE
    said = " ".join(capsys.readouterr().out.split())
    for argument in (
        "--site",
        "--text",
        "--tokens",
        "--width",
        "--k",
        "--into",
        "--seed",
        "--device",
        "--json",
        "--resume",
        "--epochs",
        "--batch",
    ):
        assert argument in said, argument
    for words in (
        "Tokens of activations to harvest",
        "[default: 4096]",
        "[default: 32]",
        "[default: resid_post.2]",
        "2000000",
    ):
        assert words in said, words


def test_the_commands_are_named_and_the_version_is_said(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == DONE
    said = capsys.readouterr().out
    assert all(name in said for name in ("dissect", "browse", "check", "bench"))
    assert main(["--version"]) == DONE and capsys.readouterr().out.strip()


def test_browsing_a_folder_that_is_not_there_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["browse", "/nowhere/at/all"]) == WRONG
    assert capsys.readouterr().err.startswith("microtome: no folder '/nowhere/at/all'; `microtome dissect specimen")


# ---------------------------------------------------------------- progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is set by hand."""
    time = [100.0]
    monkeypatch.setattr("microtome.cli.progress.time.monotonic", lambda: time[0])
    return time


def test_plain_progress_is_a_line_every_few_seconds_with_rate_and_remaining_time(now: list[float]) -> None:
    lines: list[str] = []
    with Plain(lines.append).stage("harvest", 1000, "tokens") as advance:
        for done in range(0, 1001, 100):
            advance(done)
            now[0] += 1
    assert lines == [
        "  harvest   50%  500 of 1.0k tokens  100 tokens/s  0:05 left",
        "  harvest  100%  1.0k of 1.0k tokens  100 tokens/s  0:00 left",
        "  harvest  1.0k tokens in 0:11",
    ]


def test_what_was_done_before_a_resume_does_not_flatter_the_rate(now: list[float]) -> None:
    lines: list[str] = []
    with Plain(lines.append).stage("fit", 1000, "steps") as advance:
        advance(300)
        now[0] += 10
        advance(400)
    assert lines[0] == "  fit       40%  400 of 1.0k steps  10 steps/s  1:00 left"


def test_a_stage_that_breaks_off_is_ended_too(now: list[float]) -> None:
    lines: list[str] = []
    with pytest.raises(Refusal), Plain(lines.append).stage("fit", 10, "steps") as advance:
        advance(4)
        raise Refusal("no")
    assert lines == ["  fit      4 steps in 0:00"]


def test_a_live_bar_ends_with_one_line_for_each_stage(now: list[float]) -> None:
    console = Console(record=True, width=120, force_terminal=True, file=StringIO())
    watch = Live(console)
    watch.say("the news [1]")
    with watch.stage("fit", 10, "steps") as advance:
        advance(10)
    said = console.export_text()
    assert "the news [1]" in said and "fit      10 steps in 0:00" in said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0"), (512, "512"), (2_000_000, "2.0M"), (1.5e9, "1.5G"), (999, "999")]
)
def test_numbers_are_short(number: float, said: str) -> None:
    assert short(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (75, "1:15"), (4000, "1:06:40"), (1e9, "?"), (59.7, "1:00")]
)
def test_times_are_said_as_clocks_do(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_the_command_line_names_its_commands_without_importing_them() -> None:
    assert not hasattr(command_line, "dissect")
