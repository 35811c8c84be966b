"""The `datasets` of Axolotl's configs."""

from pathlib import PurePath
from typing import Any, cast

from tunewright.config.dialects.reading import Reading
from tunewright.config.sources import source_path
from tunewright.config.text import shown

_PARTS = ("name", "split", "revision")
_SETTLED = (
    "roles_to_train roles train_on_eos train_on_eot conversation chat_template chat_template_jinja shards shards_idx "
    "preprocess_shards input_transform input_format field_tools field_thinking template_thinking_key split_thinking "
    "message_field_training message_field_training_detail drop_system_message trust_remote_code logprobs_field "
    "temperature message_property_mappings message_field_role message_field_content field_human field_model"
)
"""Keys of an entry that do nothing here: forms are told from the rows."""
_READ = ("path", "type", "ds_type", "data_files", "field", "field_messages", *_PARTS)
_LOADERS = frozenset(["json", "csv", "parquet", "text", "arrow"])


def sources(reading: Reading) -> set[str]:
    """Take the data, and return the types of its rows."""
    given = reading.keys.get("datasets")
    if given is None:
        return set()
    if not isinstance(given, list) or not given:
        reading.refuse(
            "should be a list", "Write datasets: [{path: rows.jsonl, type: alpaca}].", "datasets"
        )
        return set()
    entries: list[dict[str, Any]] = []
    kinds: set[str] = set()
    named = [{"path": e} if isinstance(e, str) else e for e in cast("list[Any]", given)]
    for number, entry in enumerate(named):
        if not isinstance(entry, dict):
            reading.refuse(
                "should be a mapping with path", "Write {path: rows.jsonl}.", "datasets", number
            )
            continue
        fields = {
            str(key): value
            for key, value in cast("dict[Any, Any]", entry).items()
            if value is not None
        }
        kinds.add(_kind(fields.get("type")))
        entries += _entries(reading, number, fields)
    if entries:
        reading.put("prepare.source", entries, "datasets")
    return kinds


def _kind(given: object) -> str:
    """Return a type of rows without its variant: `alpaca:chatml` and `alpaca_chat.load_qa` are alpaca."""
    return "alpaca" if isinstance(given, str) and given.startswith("alpaca") else "other"


def _entries(reading: Reading, number: int, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sources of an entry: one, or one for each of its files."""
    place = ("datasets", number)
    names = _files(reading, number, fields)
    paths = [source_path(name) for name in names]
    columns = _columns(reading, number, fields)
    found = [{"path": path, **({"columns": columns} if columns else {})} for path in paths]
    for part in _PARTS:
        if part not in fields:
            continue
        if all(path.startswith("hub:") for path in paths):
            found = [{**entry, part: fields[part]} for entry in found]
        elif fields[part] != "train":
            reading.note("only a dataset of the Hub has parts; files are read whole", *place, part)
    for key in fields:
        if key in _SETTLED.split():
            reading.note(
                "what rows are and what is learned of them is told from the rows", *place, key
            )
        elif key not in _READ:
            reading.note("no key that we know, so it does nothing", *place, key)
    return found


def _files(reading: Reading, number: int, fields: dict[str, Any]) -> list[str]:
    """Return the paths that an entry names; `data_files` of a folder lie in it."""
    place = ("datasets", number)
    path, given = fields.get("path"), fields.get("data_files")
    if not isinstance(path, str) or not path:
        reading.refuse("should have a path", "Write {path: rows.jsonl}.", *place)
        return []
    if given is None:
        return [path]
    files = cast("list[Any]", given) if isinstance(given, list) else [given]
    if not all(isinstance(file, str) for file in files):
        reading.refuse("should be a file or a list of them", "Name files.", *place, "data_files")
        return []
    if path in _LOADERS:
        return files
    if source_path(path).startswith("hub:"):
        reading.note(
            "all files of the split are read; download those, and name them", *place, "data_files"
        )
        return [path]
    return [str(PurePath(path) / file) for file in files]


def _columns(reading: Reading, number: int, fields: dict[str, Any]) -> dict[str, str]:
    """Return which column plays which role, where the entry says it."""
    place, kind = ("datasets", number), fields.get("type")
    columns: dict[str, str] = {}
    if isinstance(kind, dict):
        for key, value in cast("dict[Any, Any]", kind).items():
            role = str(key).removeprefix("field_")
            if role in ("system", "instruction", "input", "output") and value != role:
                columns[role] = value
            elif not str(key).startswith("field_"):
                reading.note("the chat template gives the format", *place, "type", str(key))
    elif isinstance(kind, str) and kind.split(".")[0] == "input_output":
        reading.note("rows of `segments` are not read: write them as messages", *place, "type")
    elif kind is not None and not isinstance(kind, str):
        reading.refuse(
            f"should be a type's name, not {shown(kind)}", "Write type: alpaca.", *place, "type"
        )
    field, messages = fields.get("field"), fields.get("field_messages")
    if field is not None and field != "text":
        columns["text"] = field
    if messages is not None and messages not in ("messages", "conversations"):
        columns["messages"] = messages
    return columns
