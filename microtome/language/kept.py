"""Every question that was asked and every answer that came, one line of JSON for each, found again by content.

The name of a line is the hash of the model's name and all of the question. A line that was cut off by a stop is asked
again. Answers are never replaced: a question that is to be asked anew says so by its `attempt`.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from microtome.language.ask import Answer, Prompt


class Kept:
    """The answers in one file, which need not be there yet."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.answers = {row["key"]: Answer(**row["answer"]) for row in map(whole, lines) if row}

    def __len__(self) -> int:
        return len(self.answers)

    def find(self, speaker: str, prompt: Prompt) -> Answer | None:
        """The answer of this model to this question, if it is kept."""
        return self.answers.get(key(speaker, prompt))

    def put(self, speaker: str, prompt: Prompt, answer: Answer) -> None:
        """Keep an answer, on disk before anything else is asked."""
        name = key(speaker, prompt)
        self.answers[name] = answer
        asked = {k: v for k, v in asdict(prompt).items() if k != "example"}
        line = json.dumps({"key": name, "model": speaker, "prompt": asked, "answer": asdict(answer)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")  # begun anew: a stop may have cut off the line before


def key(speaker: str, prompt: Prompt) -> str:
    """What names a question: everything that its answer depends on."""
    asked = [speaker, prompt.system, prompt.text, prompt.most, prompt.temperature, prompt.attempt]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def whole(line: str) -> dict | None:
    """A line that is whole, or None."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and {"key", "answer"} <= row.keys() else None
