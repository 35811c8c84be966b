"""What differs between two versions, side by side."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunewright.publish.versions import checking, references
from tunewright.publish.versions.layout import Key

SECTIONS = (
    *("base", "dataset", "config", "chat_template_sha256", "metrics", "verdict", "sentence"),
    *("gates", "forced", "libraries", "commit", "files"),
)
"""Keys of a manifest that are compared, in the order in which they are told."""


@dataclass(frozen=True)
class Difference:
    """A value that two versions do not share.

    Attributes:
        section: Key of the manifest.
        name: Where in it, dotted.
        one: Value of the first; None: it has none.
        other: Value of the second.
    """

    section: str
    name: str
    one: object
    other: object


def diff(root: Path, one: str, other: str) -> tuple[Key, Key, list[Difference]]:
    """Return two versions and everything in which their manifests differ but name, time and parents.

    Args:
        root: The store.
        one: `AGENT@VERSION`, `AGENT@ALIAS`, or `AGENT`.
        other: The same; `@VERSION` or a name without `@`: of the first one's agent.

    Raises:
        TunewrightError: E_NAME, E_NOT_FOUND, E_DIGEST_MISMATCH, E_UNSAFE_PATH.
    """
    first = references.find(root, one)
    rest = f"@{other}" if "@" not in other else other
    second = references.find(root, f"{first.agent}{rest}" if rest.startswith("@") else rest)
    both = [checking.read_manifest(root, key) for key in (first, second)]
    return first, second, list(differences(*both))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what differs between two manifests."""
    for section in SECTIONS:
        before, after = (
            dict(_flat("", _comparable(section, data.get(section)))) for data in (one, other)
        )
        for name in (*before, *(name for name in after if name not in before)):
            if before.get(name) != after.get(name):
                yield Difference(section, name, before.get(name), after.get(name))


def _comparable(section: str, value: Any) -> Any:
    """Return a section as mappings all the way down, so that lists of things are compared by their names."""
    if section == "files":
        return {name: entry["sha256"] for name, entry in value.items()}
    if section == "gates":
        return {
            stage: {
                str(
                    gate.get("gate")
                ): f"{'passed' if gate.get('passed') else 'FAILED'}: {gate.get('value')} "
                f"(limit {gate.get('limit')})"
                for gate in gates
            }
            for stage, gates in value.items()
        }
    return value


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        if value is not None:
            yield prefix, value
        return
    for key, inner in cast("dict[str, Any]", value).items():
        yield from _flat(f"{prefix}.{key}" if prefix else key, inner)
