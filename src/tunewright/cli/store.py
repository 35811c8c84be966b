"""The commands that look into the local model store."""

from typing import Any

import click

from tunewright.cli.options import JSON


@click.group()
def store() -> None:
    """Look into the local model store."""


ROOT = click.option("--store", "root", metavar="DIR", help="The store; MODEL_STORE_ROOT otherwise.")


def _root(root: str | None) -> Any:
    from pathlib import Path

    from tunewright.publish.store import existing, store_root

    return existing(Path(root) if root else store_root())


@store.command("list")
@ROOT
@JSON
def store_list(root: str | None, as_json: bool) -> None:
    """List all versions.

    Example: tunewright store list
    """
    from tunewright.cli import render
    from tunewright.publish.store import list_versions

    render.versions(list_versions(_root(root)), as_json=as_json)


@store.command("show")
@click.argument("agent")
@click.argument("adapter")
@click.argument("version")
@ROOT
def store_show(agent: str, adapter: str, version: str, root: str | None) -> None:
    """Print a version's manifest.

    Example: tunewright store show demo demo v20261121-1200
    """
    from tunewright.cli import render
    from tunewright.publish.store import show

    render.facts(show(_root(root), agent, adapter, version), as_json=True)


@store.command("verify")
@ROOT
def store_verify(root: str | None) -> None:
    """Hash every file of every version.

    Example: tunewright store verify
    """
    from tunewright.errors import TunewrightError
    from tunewright.publish.store import list_versions, verify

    problems = verify(_root(root))
    if problems:
        raise TunewrightError(problems)
    click.echo(f"{len(list_versions(_root(root)))} versions are as they were published.")


@store.command("resolve")
@click.argument("agent")
@ROOT
def store_resolve(agent: str, root: str | None) -> None:
    """Print the verified folder of an agent's current version.

    Example: tunewright store resolve demo
    """
    from tunewright.publish.store import resolve

    click.echo(resolve(_root(root), agent))


@store.command("rollback")
@click.argument("agent")
@click.argument("version")
@ROOT
def store_rollback(agent: str, version: str, root: str | None) -> None:
    """Make an older version an agent's current one.

    Example: tunewright store rollback demo v20261121-1200
    """
    from tunewright.publish.store import rollback

    click.echo(rollback(_root(root), agent, version))
