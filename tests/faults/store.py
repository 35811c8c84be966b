"""What processes of the fault tests do to a store; nothing of it loads torch."""

import json
import os
import random
import sys
import time
from pathlib import Path

from published import publish_once

from tunewright.publish.versions import layout, manifest, pointers, store
from tunewright.publish.versions.cleaning import gc
from tunewright.publish.versions.export import export
from tunewright.publish.versions.layout import Key

MODULES = ("tunewright.cli", "tunewright.publish.versions._publish", "faults.store")


def publish_many(root: Path, made: Path, receipts: Path, count: int) -> None:
    """Publish a run again and again; say each version as soon as it is acknowledged."""
    for number in range(count):
        say(publish_once(root, made, receipts / str(number)))


def publish_named(root: Path, made: Path, receipt: Path, version: str, start: float = 0.0) -> None:
    """Publish under an explicit name, at a moment that several agree on."""
    time.sleep(max(0.0, start - time.time()))
    say(publish_once(root, made, receipt, version=version))


def publish_at(root: Path, made: Path, receipt: Path, start: float) -> None:
    """Publish at a moment that several agree on."""
    time.sleep(max(0.0, start - time.time()))
    say(publish_once(root, made, receipt))


def work(root: Path, made: Path, receipts: Path) -> None:
    """Publish, point to what was published, clean up, and publish again; say what is acknowledged."""
    version = publish_once(root, made, receipts / "work")
    say(version)
    store.alias(root, "writer", "stable", version)
    gc(root, grace_hours=0)
    store.rollback(root, "writer", "stable")
    say(publish_once(root, made, receipts / "work"))


def publish_in_turn(root: Path, made: list[Path], receipts: Path, count: int) -> None:
    """Publish several runs in turn, each `count` times; a file is there until it is done."""
    receipts.mkdir(exist_ok=True)
    busy = receipts / BUSY
    busy.touch()
    try:
        for number in range(count * len(made)):
            say(publish_once(root, made[number % len(made)], receipts / str(number)))
    finally:
        busy.unlink()


BUSY = "busy"
"""Name of a file that is in the folder of a publisher's receipts as long as it publishes."""


def collect_beside(root: Path, receipts: list[Path], keep: int | None) -> None:
    """Clean up with no grace until nobody publishes any more; say how often, and how much was removed."""
    chance, rounds, versions, blobs = random.Random(0), 0, 0, 0
    while not all(folder.exists() for folder in receipts):
        time.sleep(0.001)
    while any((folder / BUSY).exists() for folder in receipts):
        removed = gc(root, grace_hours=0, keep=keep)
        rounds, versions = rounds + 1, versions + len(removed.versions)
        blobs += len(removed.blobs)
        # Who waits for a lock looks again from time to time: without a pause none would ever get it.
        time.sleep(chance.uniform(0, 0.02))
    say(json.dumps({"rounds": rounds, "versions": versions, "blobs": blobs}))


def alias(root: Path, version: str) -> None:
    """Move an alias."""
    store.alias(root, "writer", "stable", version)


def rollback(root: Path, version: str) -> None:
    """Move the map."""
    store.rollback(root, "writer", version)


def collect(root: Path, keep: int | None) -> None:
    """Clean up."""
    gc(root, grace_hours=0, keep=keep)


def copy_out(root: Path, folder: Path) -> None:
    """Copy a version out of the store."""
    export(root, "writer", folder)


def move_for(root: Path, versions: list[str], ready: Path) -> None:
    """Move an alias and the map between versions until a file is gone."""
    moves = 0
    while ready.exists():
        name = versions[moves % len(versions)]
        pointers.set_alias(root, Key("writer", "voice", name), "prod")
        pointers.point(root, "writer", "voice", name)
        moves += 1
    say(str(moves))


def read(root: Path, count: int, moving: Path) -> None:
    """Resolve what moves, again and again, then end the moving; say how often each version was found."""
    found: dict[str, int] = {}
    try:
        for number in range(count):
            reference = ("writer", "writer@prod", "writer@latest")[number % 3]
            folder = store.resolve(root, reference)
            name = manifest.parse((folder / manifest.MANIFEST).read_bytes())["version"]
            assert name == folder.name
            found[name] = found.get(name, 0) + 1
    finally:
        moving.unlink()
    say(json.dumps(found))


def say(text: str) -> None:
    """Tell the parent, at once."""
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def acknowledged(stdout: str) -> list[str]:
    """Return the versions that a process has told; the last line of a killed one may be torn."""
    return [line for line in stdout.split("\n")[:-1] if line.startswith("v")]


def folders(root: Path) -> list[str]:
    """Return the names of all versions."""
    return [key.version for key in layout.versions_in(root)]
