"""Renders chat templates in a process of its own: one JSON line in, one JSON line out, until the input ends.

    python -I -m tunewright.models._render_child MEGABYTES SECONDS

The seconds are of processor time, so that a busy machine takes none of them. A process that is beyond them is ended
by the system, whatever it is doing.
"""

import json
import resource
import signal
import sys
from typing import Any

from tunewright.models.templating import Refused, rendered


def main() -> None:
    """Answer every request."""
    _limit(int(sys.argv[1]) * 2**20)
    seconds = float(sys.argv[2])
    sys.stdout.write("\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = json.dumps(_answer(request))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"text": rendered(request["template"], request["values"])}
    except Refused as error:
        return {"kind": error.kind, "error": str(error), "line": error.line}


def _limit(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # Nothing is written, and no other process is begun.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
