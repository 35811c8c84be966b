"""The commands of the local model store. A version is named AGENT, AGENT@VERSION or AGENT@ALIAS."""

from pathlib import Path
from typing import Any

import click

from tunewright.cli.options import JSON


@click.group()
def store() -> None:
    """Look into the local model store, and move what points into it.

    A version is named AGENT (the one that the map names), AGENT@VERSION, or AGENT@ALIAS; `latest` is the
    newest.
    """


ROOT = click.option("--store", "root", metavar="DIR", help="The store; MODEL_STORE_ROOT otherwise.")
NAMED = "AGENT[@VERSION|@ALIAS]"


def _root(root: str | None) -> Path:
    from tunewright.config.paths import usable_path
    from tunewright.publish.versions.layout import existing, store_root

    return existing(usable_path(root) if root else store_root())


@store.command("init")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option(
    "--files",
    type=click.Choice(["hardlink", "copy"]),
    help="How equal files of versions are shared; unset: by hard links where there are any.",
)
@JSON
def store_init(folder: str | None, files: Any, as_json: bool) -> None:
    """Make a store, after trying whether the file system can hold one. The first `publish` does it too.

    Example: tunewright store init models
    """
    from tunewright.cli import stored
    from tunewright.config.paths import usable_path
    from tunewright.publish.versions.founding import init
    from tunewright.publish.versions.layout import store_root

    root = usable_path(folder) if folder else store_root()
    stored.founded(root, init(root, files), as_json=as_json)


@store.command("list")
@ROOT
@JSON
def store_list(root: str | None, as_json: bool) -> None:
    """List all versions.

    Example: tunewright store list
    """
    from tunewright.cli import stored
    from tunewright.publish.versions.store import list_versions

    stored.versions(list_versions(_root(root)), as_json=as_json)


@store.command("show")
@click.argument("version", metavar=NAMED)
@ROOT
@JSON
def store_show(version: str, root: str | None, as_json: bool) -> None:
    """Show a version: base, data, metrics, verdict, gates, size, aliases.

    Example: tunewright store show critic@stable
    """
    from tunewright.cli import stored
    from tunewright.publish.versions.store import describe

    stored.version(describe(_root(root), version), as_json=as_json)


@store.command("diff")
@click.argument("one", metavar=NAMED)
@click.argument("other", metavar="VERSION|AGENT@VERSION")
@ROOT
@JSON
def store_diff(one: str, other: str, root: str | None, as_json: bool) -> None:
    """Show side by side what differs between two versions, of one agent or of two.

    Example: tunewright store diff critic@stable latest
    """
    from tunewright.cli import stored
    from tunewright.publish.versions.difference import diff

    stored.difference(*diff(_root(root), one, other), as_json=as_json)


@store.command("verify")
@ROOT
@JSON
def store_verify(root: str | None, as_json: bool) -> None:
    """Hash every file of every version, and check the map and the aliases.

    Example: tunewright store verify
    """
    from tunewright.cli import stored
    from tunewright.errors import TunewrightError
    from tunewright.publish.versions.store import list_versions, verify

    problems = verify(_root(root))
    if problems:
        raise TunewrightError(problems)
    stored.verified(list_versions(_root(root)), as_json=as_json)


@store.command("resolve")
@click.argument("version", metavar=NAMED)
@ROOT
@JSON
def store_resolve(version: str, root: str | None, as_json: bool) -> None:
    """Print the folder of a version, every file of it hashed.

    Example: tunewright store resolve critic
    """
    from tunewright.cli import stored
    from tunewright.publish.versions.store import resolve

    stored.folder(resolve(_root(root), version), as_json=as_json)


@store.command("rollback")
@click.argument("agent")
@click.argument("version", metavar="VERSION|ALIAS")
@ROOT
@JSON
def store_rollback(agent: str, version: str, root: str | None, as_json: bool) -> None:
    """Make another version an agent's current one: the map is moved, and nothing else.

    Example: tunewright store rollback critic stable
    """
    from tunewright.cli import stored
    from tunewright.publish.versions.store import rollback

    stored.folder(rollback(_root(root), agent, version), as_json=as_json)


@store.command("alias")
@click.argument("agent")
@click.argument("name")
@click.argument("version", required=False)
@click.option("--delete", is_flag=True, help="Forget the alias.")
@ROOT
@JSON
def store_alias(
    agent: str, name: str, version: str | None, delete: bool, root: str | None, as_json: bool
) -> None:
    """Let a name such as `stable` stand for a version, whatever it stood for before.

    Example: tunewright store alias critic stable v20261121-1200
    """
    from tunewright.cli import stored
    from tunewright.publish.versions.pointers import delete_alias
    from tunewright.publish.versions.store import alias

    if delete == (version is not None):
        raise click.UsageError("Give a version, or --delete.")
    if version is None:
        delete_alias(_root(root), agent, name)
    key = None if version is None else alias(_root(root), agent, name, version)
    stored.aliased(agent, name, key, as_json=as_json)


@store.command("gc")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="How long content that no version has stays.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Remove versions too: of each adapter all but the newest N and those that something points to.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@ROOT
@JSON
def store_gc(
    grace: float, keep: int | None, dry_run: bool, root: str | None, as_json: bool
) -> None:
    """Remove what killed publishers left, and content of no version. No version goes without --keep.

    Example: tunewright store gc --keep 5 --dry-run
    """
    from tunewright.cli import stored
    from tunewright.publish.versions.cleaning import gc

    listed = None if as_json else stored.going
    found = gc(
        _root(root),
        grace_hours=grace,
        keep=keep,
        dry_run=dry_run,
        **({"listed": listed} if listed else {}),
    )
    stored.removed(found, dry_run=dry_run, as_json=as_json)


@store.command("export")
@click.argument("version", metavar=NAMED)
@click.argument("folder", metavar="DIR")
@ROOT
@JSON
def store_export(version: str, folder: str, root: str | None, as_json: bool) -> None:
    """Copy a version into a new folder of its own, each file hashed on its way.

    Example: tunewright store export critic@stable critic-stable
    """
    from tunewright.cli import render, stored
    from tunewright.config.paths import usable_path
    from tunewright.publish.versions.export import export

    target = usable_path(folder, spare_bytes=0)
    with render.progress() as listener:
        made = export(_root(root), version, target, listener=listener)
    stored.folder(made, as_json=as_json)
