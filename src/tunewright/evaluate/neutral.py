"""Text that no fine-tune is about: a model that reads it worse than its base has lost something."""

import json
from importlib import resources


def neutral_texts() -> list[str]:
    """Return the bundled neutral passages, each of another kind of plain modern English."""
    file = resources.files("tunewright.evaluate") / "neutral.json"
    return [row["text"] for row in json.loads(file.read_text(encoding="utf-8"))]
