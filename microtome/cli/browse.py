"""`microtome browse`: the runs of a folder, in a browser on this machine."""

import os
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

from microtome.browser.server import serve
from microtome.cli.session import open_session
from microtome.core.errors import Refusal


def browse(folder: Path = Path("runs"), /, *, port: int = 0, host: str = "127.0.0.1", open: bool = True) -> None:
    """Serve the runs of a folder until interrupted. Prints one line with the address, which holds a token.

    Parameters
    ----------
    folder
        A run folder, or one that holds runs.
    port
        The port to listen on (0: any free one).
    host
        The address to listen on; others than this machine's own can be reached from outside.
    open
        Open the page in a browser, where there is a display.
    """
    if not folder.is_dir():
        raise Refusal(
            f"no folder {str(folder)!r}; `microtome dissect specimen --into runs/specimen` makes one to look at"
        )

    def announce(line: str) -> None:
        print(line, flush=True)
        if open and has_display():
            webbrowser.open(line.rsplit(" ", 1)[-1])

    with suppress(KeyboardInterrupt):  # the way to end it
        serve(folder, host=host, port=port, open_session=open_session, announce=announce)


def has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
