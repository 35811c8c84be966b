"""What no line of this repository may do: run code that came with a model, unpickle, hand words to a shell.

    python tools/safety.py [FOLDER ...]

Each call that could is looked at in the syntax tree, so that neither a line break nor an alias of a module hides it.
RELIABILITY S5 is the requirement; `make check` runs it.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "tools", "benchmarks")
LOADERS = ("from_pretrained", "from_config")
"""Functions that run a repository's own code where they are told to trust it."""
ASKING = ("Auto", "loader")
"""In names of classes whose loaders ask the user, or follow a default, unless they are told that nothing is trusted."""
FORBIDDEN = {
    "yaml.load": "makes any object of a YAML file; take yaml.safe_load",
    "yaml.load_all": "makes any object of a YAML file; take yaml.safe_load_all",
    "yaml.unsafe_load": "makes any object of a YAML file; take yaml.safe_load",
    "yaml.full_load": "makes objects of a YAML file; take yaml.safe_load",
    "os.system": "hands its words to a shell; take subprocess.run with a list",
    "os.popen": "hands its words to a shell; take subprocess.run with a list",
    "subprocess.getoutput": "hands its words to a shell; take subprocess.run with a list",
    "subprocess.getstatusoutput": "hands its words to a shell; take subprocess.run with a list",
    "tempfile.mktemp": "names a file that somebody else may make first",
    "jinja2.Environment": "runs what a template says; take ImmutableSandboxedEnvironment",
    "jinja2.Template": "runs what a template says; take ImmutableSandboxedEnvironment",
    "jinja2.nativetypes.NativeEnvironment": "runs what a template says",
    "eval": "runs text",
    "exec": "runs text",
    "__import__": "imports what a text names; take importlib.import_module with a literal",
}
PICKLES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
"""Modules whose files run code when they are read."""
LITERALS: Mapping[str, object] = {
    "trust_remote_code": False,
    "shell": False,
    "allow_pickle": False,
    "weights_only": True,
}
"""Arguments that may have this value only, and written down as it."""
READERS = ("agrees",)
"""Called for what a key of another tool's config may say, which is passed on to nobody."""


def faults(text: str, *, guards: bool = True) -> Iterator[tuple[int, str]]:
    """Give line and reason of everything that is forbidden in a module's text.

    Args:
        text: Of the module.
        guards: `assert` is forbidden as well: under `python -O` it is not there.
    """
    tree = ast.parse(text)
    names = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _import(node)
        elif isinstance(node, ast.Assert) and guards:
            yield node.lineno, "assert is no guard: python -O leaves it out; raise an error"
        elif isinstance(node, ast.Dict):
            yield from _pairs(node)
        elif isinstance(node, ast.Call):
            yield from _call(node, names)


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return the full name of each name that an import gives."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _import(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    for name in [*modules, *(alias.name for alias in node.names)]:
        if name.partition(".")[0] in PICKLES:
            yield node.lineno, f"{name} runs code that a file holds"


def _pairs(node: ast.Dict) -> Iterator[tuple[int, str]]:
    for key, value in zip(node.keys, node.values, strict=True):
        read = isinstance(value, ast.Call) and _name(value.func, {}) in READERS
        if isinstance(key, ast.Constant) and key.value in LITERALS and not read:
            yield from _literal(str(key.value), value)


def _literal(name: str, value: ast.expr) -> Iterator[tuple[int, str]]:
    wanted = LITERALS[name]
    if not (isinstance(value, ast.Constant) and value.value is wanted):
        yield value.lineno, f"{name} has to be {wanted}, written down as it"


def _call(node: ast.Call, names: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    name = _name(node.func, names)
    if name in FORBIDDEN:
        yield node.lineno, f"{name} {FORBIDDEN[name]}"
    given = {keyword.arg for keyword in node.keywords}
    for keyword in node.keywords:
        if keyword.arg in LITERALS:
            yield from _literal(keyword.arg, keyword.value)
    owner, _, method = name.rpartition(".")
    if name == "torch.load" and "weights_only" not in given:
        yield node.lineno, "torch.load unpickles; take safetensors, or weights_only=True"
    asks = any(part in owner.rpartition(".")[2] for part in ASKING)
    if method in LOADERS and asks and "trust_remote_code" not in given:
        yield node.lineno, f"{name} has to be told trust_remote_code=False"


def _name(node: ast.expr, names: Mapping[str, str]) -> str:
    """Return the dotted name of what is called, aliases replaced; empty where it is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ".".join(["", *reversed(parts)]) if parts else ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def main() -> None:
    """Print every fault, and end with 1 if there is one."""
    folders = [Path(name) for name in sys.argv[1:]] or [ROOT / name for name in FOLDERS]
    found = [
        f"{path}:{line}: {reason}"
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        for line, reason in faults(path.read_text(encoding="utf-8"))
    ]
    print(*found, sep="\n", end="\n" if found else "")
    if found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
