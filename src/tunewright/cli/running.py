"""The commands about a whole run: all its stages, and how it stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from tunewright.cli import teams
from tunewright.cli.options import JSON, SET, given
from tunewright.config.names import usable_name

CHOICE = click.Choice(["continue", "stop"])


def _go(
    target: str,
    overrides: Sequence[str],
    *,
    as_json: bool,
    agents: Sequence[str] = (),
    answers: dict[str, str | None] | None = None,
    silent: bool = True,
    **stages: Any,
) -> None:
    from tunewright import pipeline
    from tunewright.cli import render
    from tunewright.cli.asking import decider
    from tunewright.comparison import require_gates
    from tunewright.pushing import push_after_run, require_ready
    from tunewright.targets import config_of

    ended = None
    known = cast("Any", {name: text for name, text in (answers or {}).items() if text})
    if team := teams.taken(target, overrides, agents):
        teams.run(team, as_json=as_json, answers=known, silent=silent, **stages)
        return
    with render.progress() as listener:
        config = config_of(target, overrides, note=listener.said)
        uploads = not stages.get("until") and not stages.get("only")
        decides = pipeline.Given(known, decider(listener, silent=silent or as_json))
        try:
            if uploads:
                require_ready(config)
            outcomes = pipeline.run(config, **stages, decider=decides, listener=listener)
            if uploads:
                push_after_run(config, listener=listener)
        except pipeline.EndedError as error:
            ended, outcomes = error, error.outcomes
    render.outcomes(config, outcomes, as_json=as_json)
    if ended is not None:
        raise ended
    if stages.get("until") == "compare":
        require_gates(outcomes[-1].artifact)


@click.command()
@click.argument("source", metavar="[TEXT]", required=False)
@SET
@JSON
def demo(source: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run the whole pipeline on the bundled base: offline, minutes.

    TEXT is a file or folder of your own; the bundled manuscript otherwise. The run is runs/NAME, NAME being that
    of the file.

    Example: tunewright demo my-novel.txt
    """
    own: list[str] = []
    if source is not None:
        own = given(prepare__source=source, name=usable_name(Path(source).stem) or "own-text")
    _go("preset:demo", [*own, *overrides], as_json=as_json)


@click.command()
@click.argument("target", metavar="CONFIG|RUN")
@SET
@JSON
@click.option(
    "--until",
    metavar="STAGE",
    help="Stop after this stage: prepare, check, plan, train, compare, merge, export, publish or report.",
)
@click.option(
    "--from",
    "start",
    metavar="STAGE",
    help="Do this stage and those after it anew; what they are made of has to be there.",
)
@click.option(
    "--only", metavar="STAGE[,STAGE]", help="Do these stages anew, and no others: compare,merge"
)
@click.option("--dry-run", is_flag=True, help="Show which stages would be done, and why.")
@click.option("--yes", is_flag=True, help="Ask nothing; without a terminal nothing is asked.")
@click.option(
    "--on-warnings", type=CHOICE, help="The check warns: go on (as without a terminal), or stop."
)
@click.option(
    "--on-verdict",
    type=CHOICE,
    help="The verdict is not `improved`: merge and export (as without a terminal), or stop.",
)
@click.option(
    "--checkpoint",
    metavar="auto|N",
    help="merge.checkpoint; without it and a terminal the run's adapter is merged.",
)
@teams.AGENT
def run(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
    yes: bool,
    only: str | None,
    checkpoint: str | None,
    agents: tuple[str, ...],
    **options: Any,
) -> None:
    """Run all stages; finished ones are skipped, an interrupted one goes on.

    Of a config with `agents` all of them, or those that --agent names; what is asked is asked for each.

    Example: tunewright run author.yaml --until compare
    """
    given_all = (*overrides, *given(merge__checkpoint=_step(checkpoint)))
    names = tuple(name.strip() for name in only.split(",")) if only is not None else ()
    stages = {"until": options["until"], "start": options["start"], "only": names}
    if dry_run:
        _try(target, given_all, agents, as_json=as_json, **stages)
        return
    answers = {name: options[f"on_{name}"] for name in ("warnings", "verdict")}
    _go(target, given_all, as_json=as_json, agents=agents, answers=answers, silent=yes, **stages)


def _step(checkpoint: str | None) -> str | int | None:
    """Return which checkpoint is named.

    Raises:
        click.BadParameter: None.
    """
    if checkpoint is None or checkpoint == "auto":
        return checkpoint
    if not checkpoint.isascii() or not checkpoint.isdigit():
        raise click.BadParameter(f"'{checkpoint}' is neither auto nor the number of a step.")
    return int(checkpoint)


def _try(
    target: str, overrides: Sequence[str], agents: Sequence[str], *, as_json: bool, **stages: Any
) -> None:
    from tunewright.cli import render, standing
    from tunewright.pipeline.status import tried
    from tunewright.targets import config_of

    team = teams.taken(target, overrides, agents)
    with render.progress() as listener:
        if team:
            configs = list(team.configs.values())
        else:
            configs = [config_of(target, overrides, note=listener.said)]
        found = {one.run_dir: tried(one, **stages, listener=listener) for one in configs}
    standing.tried(found, as_json=as_json)


@click.command()
@click.argument("target", metavar="CONFIG|RUN|FOLDER")
@SET
@JSON
def status(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show how a run stands: which stages are done, outdated and why, running; and what to type next.

    Of several agents, or a folder of several runs, it shows a line each. Nothing is done, and no file is hashed: `verify` does that.

    Example: tunewright status runs/author
    """
    from tunewright.cli import render, standing
    from tunewright.pipeline.status import runs_in, status, statuses
    from tunewright.targets import config_of, team_of

    team = team_of(target, overrides)
    with render.progress() as listener:
        folder = None if team else runs_in(target)
        if team:
            found = [
                status(config, config.run_dir, listener=listener)
                for config in team.configs.values()
            ]
        elif folder is not None:
            found = statuses(folder, overrides, listener=listener)
        else:
            config = config_of(target, overrides, note=listener.said)
            found = status(config, target, listener=listener)
    standing.shown(found, as_json=as_json)
