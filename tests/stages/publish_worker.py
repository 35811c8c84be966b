"""A publisher in a process of its own, for test_publish.py: says which versions it made, and what it has loaded."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from published import publish_once

if __name__ == "__main__":
    store, made, run = map(Path, sys.argv[1:4])
    versions = [publish_once(store, made, run) for _ in range(int(sys.argv[4]))]
    heavy = [name for name in ("torch", "transformers", "numpy") if name in sys.modules]
    sys.stdout.write(json.dumps({"versions": versions, "heavy": heavy}))
