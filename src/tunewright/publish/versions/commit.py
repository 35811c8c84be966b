"""Which state of a repository a version was published from."""

import subprocess
from pathlib import Path

TIMEOUT_S = 10.0


def commit_of(folder: Path) -> str | None:
    """Return the commit of the git repository that a folder is in, with `-dirty` where files have changed.

    Files that git does not know make no difference: a run is one. None: no repository, no commit, or no git.
    """
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if changed != "" else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says; nothing that a repository's own settings name is started."""
    settings = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *settings, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
