"""Python and packages: what Tunewright asks for, and what is installed."""

import platform
import shlex
from collections.abc import Iterable, Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tunewright.doctor.findings import Finding

OWN = "tunewright"
SHOWN = ("torch", "transformers", "peft", "trl")
EXTRAS = {
    "vllm": "serving with vLLM, on a GPU",
    "wandb": "curves at Weights & Biases",
    "trackio": "curves in Trackio",
    "tensorboard": "curves in TensorBoard",
}
"""What each extra is for; that of K-quants is looked at with the tools, as a program serves as well."""


def packages() -> Iterator[Finding]:
    """Give findings on Python, the packages that are always needed, and those that some features need."""
    asked = metadata.metadata(OWN)["Requires-Python"] or ""
    yield python(platform.python_version(), asked)
    needed, extras = requirements(metadata.requires(OWN) or ())
    yield needed_packages(needed)
    for name in sorted(extras):
        yield extra(name, extras[name])


def python(found: str, asked: str) -> Finding:
    """Return the finding on Python's version.

    Args:
        found: The version that runs.
        asked: The range in the package's metadata.
    """
    if SpecifierSet(asked).contains(found, prereleases=True):
        return Finding("packages", "Python", "good", found)
    fix = f"Make an environment with Python {asked}, and install Tunewright there."
    return Finding("packages", "Python", "bad", f"{found}, and {asked} is needed", fix)


def requirements(lines: Iterable[str]) -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Return what is always needed here, and what each extra needs besides.

    Args:
        lines: As in the metadata of a package.
    """
    needed: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {}
    for one in map(Requirement, lines):
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            needed.append(one)
            continue
        for name in EXTRAS:
            if one.marker.evaluate({"extra": name}):
                extras.setdefault(name, []).append(one)
    return needed, extras


def needed_packages(needed: Iterable[Requirement]) -> Finding:
    """Return one finding on all packages that are always needed."""
    needed = list(needed)
    wrong = {str(one): text for one in needed if (text := _wrong(one))}
    if wrong:
        fix = f"pip install {' '.join(shlex.quote(one) for one in wrong)}"
        return Finding("packages", "packages", "bad", "; ".join(wrong.values()), fix)
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN)
    text = f"{len(needed)} as they should be: {shown}, ..."
    return Finding("packages", "packages", "good", text)


def extra(name: str, needed: Iterable[Requirement]) -> Finding:
    """Return the finding on an extra."""
    wrong = [text for one in needed if (text := _wrong(one))]
    what = EXTRAS[name]
    if not wrong:
        return Finding("packages", name, "good", f"installed: {what}")
    text = f"for {what}: {'; '.join(wrong)}"
    return Finding("packages", name, "note", text, f"pip install '{OWN}[{name}]'")


def _wrong(one: Requirement) -> str | None:
    """Return what is wrong with an installed package; None: nothing."""
    try:
        found = metadata.version(one.name)
    except metadata.PackageNotFoundError:
        return f"{one.name} is not installed"
    if one.specifier.contains(found, prereleases=True):
        return None
    return f"{one.name} is {found}, and {one.specifier} is needed"
