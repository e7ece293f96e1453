"""Talkers that were taught for a study: each is trained once, kept in the study's folder, and read from there again."""

from dataclasses import asdict
from pathlib import Path

from microtome.store.checkpoint import load_state, save_state
from microtome.studies.study import Watch
from microtome.toys.talker import Lessons, Talker


def taught(task: str, lessons: Lessons, seed: int, folder: Path, watch: Watch) -> Talker:
    """A talker that learned with this seed. One that was kept after other lessons is taught anew."""
    talker, path = Talker(task, lessons, seed), folder / f"{task}-{seed}.safetensors"
    about = {"task": task, "seed": seed, **asdict(lessons)}
    kept = load_state(path) if path.exists() else {}
    if kept.get("about") == about:
        talker.model.module.load_state_dict(kept["network"])
    else:
        with watch.stage(f"teach a network, seed {seed}", lessons.steps, "steps") as advance:
            for step, _ in enumerate(talker.learning(), 1):
                advance(step)
        save_state({"about": about, "network": dict(talker.model.module.state_dict())}, path)
    talker.model.module.requires_grad_(False)
    return talker
