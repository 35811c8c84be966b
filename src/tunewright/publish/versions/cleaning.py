"""What may leave a store: rests of killed publishers, blobs of no version, and old versions where it is asked for."""

import stat
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import TunewrightError
from tunewright.publish.versions import checking, drafts, layout, pointers, references
from tunewright.publish.versions.layout import BLOBS, Key

DEFAULT_GRACE_HOURS = 24.0


@dataclass(frozen=True)
class Removed:
    """What was removed, or would be.

    Attributes:
        drafts: Versions in the making whose publisher is dead, and rests of removals.
        blobs: Contents that no version has.
        versions: Versions older than those that were to be kept.
        freed_bytes: What the disk gets back, links counted once.
    """

    drafts: tuple[str, ...]
    blobs: tuple[str, ...]
    versions: tuple[Key, ...]
    freed_bytes: int


@dataclass(frozen=True)
class _Plan:
    """What is to go.

    Attributes:
        versions: Versions.
        blobs: Files among the blobs.
        freed_bytes: Sizes of what then has no name left.
    """

    versions: tuple[Key, ...]
    blobs: tuple[Path, ...]
    freed_bytes: int


def gc(
    root: Path,
    *,
    grace_hours: float = DEFAULT_GRACE_HOURS,
    keep: int | None = None,
    dry_run: bool = False,
    listed: Callable[[Sequence[Key]], object] = bool,
) -> Removed:
    """Remove what nobody needs; versions only with `keep`, and then those that nothing points to.

    Args:
        root: The store.
        grace_hours: A blob of no version, and a draft without a lock, stay for that time after their last
            change.
        keep: Of each adapter, the newest versions that stay; those with an alias or in the map stay besides.
        dry_run: Remove nothing.
        listed: Told which versions go, before they do.

    Raises:
        TunewrightError: E_DIGEST_MISMATCH, the map or the aliases are damaged, so that nobody knows what is
            needed. E_UNSAFE_PATH, E_RUN_LOCKED.
    """
    links = layout.links_in(root)
    if links:
        raise TunewrightError([layout.link_problem(path) for path in links])
    rests = drafts.sweep(root, dry_run=dry_run)
    until = time.time() - grace_hours * 3600
    with layout.locked(root):
        needed = pointers.pointed_at(root)
        versions = () if keep is None else _outlived(root, keep, needed)
        plan = _planned(root, versions, until)
        listed(plan.versions)
        old = [*drafts.orphans(root, until), *root.glob(".*.new")]
        for key in () if dry_run else plan.versions:
            drafts.remove(root, layout.folder_of(root, key))
        for blob in () if dry_run else plan.blobs:
            # Whoever takes it up between the look and the removal has a name of its own for the content.
            if _names(blob) == 1:
                blob.unlink(missing_ok=True)
        for rest in () if dry_run else old:
            drafts.remove(root, rest) if rest.is_dir() else rest.unlink()
    rests += [rest.name for rest in old]
    names = tuple(blob.name for blob in plan.blobs)
    return Removed(tuple(rests), names, plan.versions, plan.freed_bytes)


def _outlived(root: Path, keep: int, needed: Container[Key]) -> tuple[Key, ...]:
    """Return the whole versions beyond the newest of each adapter that nothing points to."""
    adapters: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key in layout.versions_in(root):
        with suppress(TunewrightError):
            data = checking.read_manifest(root, key)
            adapters.setdefault((key.agent, key.adapter), []).append(data)
    found: list[Key] = []
    for names, versions in adapters.items():
        newest_last = sorted(versions, key=references.order)
        old = [Key(*names, data["version"]) for data in newest_last[: len(versions) - keep]]
        found += [key for key in old if key not in needed]
    return tuple(found)


def _planned(root: Path, versions: Sequence[Key], until: float) -> _Plan:
    """Return what can go with these versions: blobs that no other version has, and old ones of none."""
    going: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], int] = {}
    links: dict[tuple[int, int], int] = {}
    for key in versions:
        for path in layout.folder_of(root, key).rglob("*"):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                inode = (found.st_dev, found.st_ino)
                going[inode] += 1
                sizes[inode], links[inode] = found.st_size, found.st_nlink
    unused: list[Path] = []
    for blob in sorted((root / BLOBS).glob("*")):
        found = blob.lstat()
        inode = (found.st_dev, found.st_ino)
        is_last = found.st_nlink - going[inode] == 1
        if is_last and (inode in sizes or found.st_ctime <= until):
            unused.append(blob)
            going[inode] += 1
            sizes[inode], links[inode] = found.st_size, found.st_nlink
    freed = sum(size for inode, size in sizes.items() if going[inode] >= links[inode])
    return _Plan(tuple(versions), tuple(unused), freed)


def _names(blob: Path) -> int:
    try:
        return blob.lstat().st_nlink
    except FileNotFoundError:
        return 0
