"""The command that compares, and how its result looks."""

from typing import Any

import click

from tunewright.cli import teams
from tunewright.cli.options import JSON, SET, given, note


@click.command()
@click.argument("target", metavar="CONFIG|RUN|PROMPTS")
@SET
@JSON
@click.option(
    "--tuned",
    default="adapter",
    metavar="WHAT",
    help="In place of the adapter: checkpoint-N, merged, an exported type such as Q8_0, a GGUF file, a model folder.",
)
@click.option(
    "--baseline-url", metavar="URL", help="OpenAI-compatible endpoint, in place of the base."
)
@click.option("--baseline-model", metavar="NAME", help="Its model; unset: the only one it lists.")
@click.option(
    "--tuned-url", metavar="URL", help="OpenAI-compatible endpoint, in place of the adapter."
)
@click.option("--tuned-model", metavar="NAME", help="Its model; unset: the only one it lists.")
@click.option(
    "--prompts", "prompts_file", metavar="FILE", help="compare.prompts_file: ask these, too."
)
@click.option(
    "--judge-url", metavar="URL", help="compare.judge_url: a model that says which is better."
)
@click.option(
    "--checkpoints",
    is_flag=True,
    default=None,
    help="Ask each checkpoint, too: score over training.",
)
@click.option(
    "--fail-under", type=float, metavar="PERCENT", help="Exit 1 if the transfer score is lower."
)
@teams.AGENT
def compare(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    tuned: str,
    baseline_url: str | None,
    baseline_model: str | None,
    tuned_url: str | None,
    tuned_model: str | None,
    agents: tuple[str, ...],
    **options: Any,
) -> None:
    """Compare base and tuned: transfer score, memorisation, degradation, structure, verdict.

    A file of prompts is asked of two endpoints. Of a config with `agents` each agent is compared, and each
    adapter with every agent's held-out data. Exit code 1: a gate failed.

    Example: tunewright compare runs/author --fail-under 60
    """
    from tunewright import comparison
    from tunewright.cli import render
    from tunewright.evaluate import Endpoints

    if (baseline_url is None) != (tuned_url is None):
        raise click.UsageError("--baseline-url and --tuned-url come together.")
    endpoints = None
    if baseline_url is not None and tuned_url is not None:
        endpoints = Endpoints(baseline_url, tuned_url, baseline_model, tuned_model)
    elif baseline_model or tuned_model:
        raise click.UsageError("--baseline-model and --tuned-model name models of endpoints.")
    flags = given(**{f"compare__{name}": value for name, value in options.items()})
    if flags and endpoints is None and tuned == "adapter":
        note(f"Kept in the run, as --set would be: {', '.join(flags)}")
    if team := teams.taken(target, (*overrides, *flags), agents):
        if endpoints or tuned != "adapter":
            message = "--tuned and endpoints are for one agent: name its run."
            raise click.UsageError(message)
        teams.stage(team, "compare", as_json=as_json)
        return
    with render.progress() as listener:
        made = comparison.compare_any(
            target, [*overrides, *flags], tuned=tuned, endpoints=endpoints, listener=listener
        )
    if not as_json:
        render.artifact(made, as_json=False)
    comparison.require_gates(made)
    if as_json:
        render.artifact(made, as_json=True)
