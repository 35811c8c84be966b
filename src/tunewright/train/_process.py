"""When a process was started: tells it from a later one that was given the same number."""

from pathlib import Path

import psutil


def start_of(pid: int) -> str | None:
    """Return when a process was started, on a clock of the machine's own; None: it does not run.

    Linux counts from the boot, so that a clock that is set back changes nothing.

    Source: proc(5), /proc/pid/stat, fields 3 and 22.
    """
    if not Path("/proc/self/stat").exists():
        try:
            process = psutil.Process(pid)
            zombie = process.status() == psutil.STATUS_ZOMBIE
            return None if zombie else str(process.create_time())
        except psutil.Error:
            return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program, in brackets, may hold spaces and brackets.
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
