"""Files of rows as people have them: what is used, what is said of the rest, and in which words."""

import json
import shlex

import pytest

from tunewright import prepare
from tunewright.config.load import config_of_source
from tunewright.data._gathered import Gathered
from tunewright.data._row_files import preference_problem, read_row_file
from tunewright.data.rejects import EXAMPLES, SHOWN, Rejects, too_many
from tunewright.data.sources import SourceFile
from tunewright.data.spool import Rows
from tunewright.errors import CODES, Problem, TunewrightError
from tunewright.events import SILENT

PAIR = {"prompt": "q", "completion": "a"}


@pytest.fixture
def gather(tmp_path):
    """Return a function that reads files of rows: name to rows, or to the text of the file."""

    def read(files, *options):
        gathered = Gathered(tmp_path / f"work{len(list(tmp_path.iterdir()))}", ())
        for name, content in files.items():
            path = tmp_path / name
            text = content if isinstance(content, str) else "\n".join(map(json.dumps, content))
            path.write_text(text)
            config = config_of_source(str(path), list(options))
            read_row_file(config, SourceFile(path, name, "rows", "", 0, path), gathered, SILENT)
        gathered.close()
        return gathered

    return read


def listed(gathered):
    with Rows(gathered.rejects.path) as rows:
        return list(rows)


def made(gathered):
    with Rows(gathered.rows.path) as rows:
        return list(rows)


def line_of(problem):
    return int(problem.where.rpartition(":")[2])


def test_columns_that_the_pipeline_writes_get_another_name_and_it_is_said(gather):
    found = gather({"r.jsonl": [{**PAIR, "copy": "x", "origin": "y", "source": "z"}] * 3})
    row = made(found)[0]
    assert (row["copy_column"], row["origin_column"], row["source_column"]) == ("x", "y", "z")
    assert "copy" not in row
    assert "origin" not in row
    (note,) = found.notes
    assert note == (
        "r.jsonl: columns renamed: copy -> copy_column, origin -> origin_column, "
        "source -> source_column"
    )


@pytest.mark.parametrize("count", [2, 19, 20, 21, 500])
def test_a_file_without_a_known_form_is_one_problem_with_what_to_type(gather, count):
    rows = [{"ask": f"a question {n}?", "say": f"answer {n} " * 9} for n in range(count)]
    found = gather({"bad.jsonl": [{"prompt": "q", "completion": ""}] * 2, "r.jsonl": rows})
    first, *others = found.rejects.shortened()
    assert (first.code, line_of(first)) == ("E_COLUMNS", 1)
    assert f"None of {count:,} rows" in first.message
    assert "ask, say" in first.message
    assert first.fix == "--set 'prepare.columns={prompt: ask, completion: say}'"
    assert [p.message for p in others] == ["The row cannot be used: completion is empty."] * 2
    assert found.rejects.count == count + 2
    in_list = [row for row in listed(found) if row["where"].startswith(first.where[:-2])]
    assert [int(row["where"].rpartition(":")[2]) for row in in_list] == list(range(1, count + 1))
    assert in_list[-1]["row"] == rows[-1]
    assert all(row["fix"] == first.fix for row in in_list)
    _, value = shlex.split(first.fix)
    assert len(gather({"r.jsonl": rows}, value)) == count


def test_rows_without_a_known_form_count_against_the_share(gather):
    files = {"good.jsonl": [PAIR] * 70, "r.jsonl": [{"ask": "q", "say": "a"}] * 30}
    found = gather(files)
    limits = [
        config_of_source("x", ["prepare.on_bad_row=skip", f"prepare.max_bad={limit}"]).prepare
        for limit in (0.31, 0.29)
    ]
    assert too_many(found.rejects, len(found), limits[0]) == []
    share, *_ = too_many(found.rejects, len(found), limits[1])
    assert "30 of 100 rows" in share.message
    assert "(30.0%)" in share.message


@pytest.mark.parametrize("first_known", [1, 5, 60])
def test_rows_without_a_known_form_among_others_are_named_in_order(gather, first_known):
    rows = [{"ask": f"q{n}"} for n in range(1, 101)]
    rows[first_known - 1] = PAIR
    rows[80] = {**PAIR, "completion": " "}
    found = gather({"r.jsonl": rows})
    *shown, more = found.rejects.shortened()
    assert [p.code for p in shown] == ["E_COLUMNS"] * 3 + ["E_DATA_ROW"]
    lines = [line_of(p) for p in shown]
    assert lines == sorted(lines)
    assert lines[0] == (2 if first_known == 1 else 1)
    assert not any("prepare.columns" in p.fix for p in shown)
    assert more.message == "95 more rows: The row has no known form."
    assert [int(row["where"].rpartition(":")[2]) for row in listed(found)] == [
        n for n in range(1, 101) if n != first_known
    ]


def test_a_single_row_without_a_known_form_gets_the_suggestion_too(gather):
    (only,) = gather({"r.jsonl": [{"question": "q", "answer": "a"}]}).rejects.shortened()
    assert only.message == "The row has no known form; the columns are question, answer."
    assert only.fix == "--set 'prepare.columns={prompt: question, completion: answer}'"


def talk(answer):
    return [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"chosen": "Human: q\n\nAssistant: a", "rejected": "Human: q\n\nAssistant: b"}, "text"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "completion"),
        ({"chosen": talk("a"), "rejected": talk("b")}, "messages"),
        ({"prompt": "q", "chosen": talk("a"), "rejected": talk("b"), "score": 1}, "messages"),
    ],
)
def test_the_advice_on_preference_data_can_be_followed(gather, row, columns):
    found = gather({"p.jsonl": [row] * 4})
    assert found.rejects.count == 0
    assert found.forms["p.jsonl"].counts == {"preference": 4}
    fix = found.preference_fixes["p.jsonl"]
    assert fix == f"--set prepare.columns.{columns}=chosen"
    assert fix in preference_problem("p.jsonl", 4, 1, fix).fix
    again = gather({"p.jsonl": [row] * 4}, fix.removeprefix("--set "))
    assert (len(again), again.rejects.count) == (4, 0)
    assert "rejected -> rejected_column" in again.notes[0]


def test_an_empty_prompt_is_no_raw_text(gather):
    found = gather({"r.csv": "prompt,completion\nq,a\n,b\n"})
    (problem,) = found.rejects.shortened()
    assert line_of(problem) == 3
    assert "prompt is empty; for plain text use a column named text" in problem.message
    rows = [{"prompt": None, "completion": "a"}, {"prompt": "", "completion": [*talk("a")]},
            {"prompt": None, "completion": None, "text": "t"}]  # fmt: skip
    found = gather({"r.jsonl": rows})
    assert [line_of(p) for p in found.rejects.problems] == [1, 2]
    assert [row["text"] for row in made(found)] == ["t"]


def test_a_blank_source_id_is_none(gather):
    rows = [{**PAIR, "source_id": origin} for origin in ("", "  ", None, "a", "a", 0)]
    found = gather({"r.jsonl": rows})
    assert [row.get("source_id", "none") for row in made(found)] == ["none"] * 3 + ["a", "a", 0]
    assert len(set(found.groups)) == 5


def test_keys_of_messages_that_are_left_out_are_said_once(gather):
    turns = [talk("a")[0], {**talk("a")[1], "reasoning_content": "since"}]
    found = gather({"r.jsonl": [{"messages": turns}] * 120})
    assert found.notes == [
        "r.jsonl: messages have keys that are left out: reasoning_content (120 times)"
    ]


def test_answers_that_are_not_to_be_learned_are_refused(gather):
    turns = [{**talk("a")[0], "train": False}, {**talk("a")[1], "train": False}]
    found = gather({"r.jsonl": [{"messages": turns}, {"messages": [turns[0], talk("a")[1]]}]})
    (problem,) = found.rejects.problems
    assert "messages[1].train is false" in problem.message
    assert len(found) == 1


def test_columns_that_are_given_and_not_there(gather):
    columns = "prepare.columns={prompt: q, completion: a, system: sys, tags: tagz}"
    rows = [{"q": "x", "a": "y"}, {"q": "x", "a": "y", "sys": "s"}, {"q": "x"}]
    found = gather({"r.jsonl": rows}, columns)
    assert len(found) == 2
    (problem,) = found.rejects.problems
    assert line_of(problem) == 3
    assert "there is no column 'a'; the columns are q" in problem.message
    assert "r.jsonl: no row has the column tagz, given for tags" in found.notes
    assert not any("given for system" in note for note in found.notes)


@pytest.mark.parametrize("late", [150, pytest.param(200_001, marks=pytest.mark.faults)])
def test_a_late_change_of_type_is_said(gather, late):
    rows = [{**PAIR, "tags": "x" if n < late else ["x"], "n": n} for n in range(1, late + 50)]
    assert gather({"r.jsonl": rows}).notes == [
        f"r.jsonl: columns whose type changes: tags is text from line 1 and a list from line {late:,}"
    ]
    rows[4] = {**PAIR, "n": "none", "completion": 5, "tags": "x"}
    assert len(gather({"r.jsonl": rows}).notes) == 1


def test_problems_of_one_reason_are_three_examples_and_a_count(gather):
    rows = [{"prompt": f"q{n}", "completion": ""} for n in range(30)]
    rows += [{"messages": talk("a") * 2 + [{"role": f"r{n}", "content": "x"}]} for n in range(4)]
    found = gather({"r.jsonl": rows})
    shown = found.rejects.shortened()
    assert [line_of(p) for p in shown[:6]] == [1, 2, 3, 31, 32, 33]
    assert [p.message.split(":")[0] for p in shown[6:]] == ["27 more rows", "1 more row"]
    assert shown[6].message == "27 more rows: completion is empty."
    assert all(p.code in CODES and p.where.endswith("r.jsonl") and p.fix for p in shown[6:])
    assert found.rejects.reasons["completion is empty"] == 30
    assert len(listed(found)) == 34


def test_reasons_are_bounded_and_every_row_is_counted(tmp_path):
    rejects = Rejects(tmp_path / "rejected.jsonl")
    letters = [f"{a}{b}{c}" for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefgh"]
    for n, name in enumerate(letters):
        for _ in range(2):
            rejects.report(Problem("E_DATA_ROW", f"The row {name} is bad.", f"f{n % 3}:{n}", "x"))
    rejects.close()
    assert rejects.count == rejects.reasons.total() == 1024
    assert len(rejects.reasons) == 201
    shown = rejects.shortened()
    assert len(shown) == SHOWN + 11
    more = [int(p.message.split()[0].replace(",", "")) for p in shown[SHOWN:]]
    assert sum(more) + SHOWN == 1024
    assert more[0] == 1024 - 400
    assert shown[SHOWN].message.endswith("other reasons.")
    assert shown[SHOWN].where.endswith(" and other files")


def test_one_reason_stands_for_rows_that_differ_in_particulars(tmp_path):
    rejects = Rejects(tmp_path / "rejected.jsonl")
    for n in range(9):
        texts = "; ".join(f"messages[{k}].content is null" for k in range(n + 1))
        rejects.report(Problem("E_DATA_ROW", f"The row cannot be used: {texts}.", f"f:{n}", "x"))
        text = f"there is no column 'c{n}'; the columns are {'abc'[n % 3]}, b; output is empty"
        rejects.report(Problem("E_DATA_ROW", f"The row cannot be used: {text}.", f"f:{n}", "x"))
    rejects.close()
    assert rejects.reasons == {
        "messages[\N{HORIZONTAL ELLIPSIS}].content is null": 9,
        "there is no column \N{HORIZONTAL ELLIPSIS}; output is empty": 9,
    }
    assert len(rejects.problems) == 2 * EXAMPLES


def test_a_particular_that_all_rows_share_is_told(tmp_path):
    rejects = Rejects(tmp_path / "rejected.jsonl")
    for n in range(9):
        text = f"the prompt template needs 'topic'; the columns are a{n}, b"
        rejects.report(Problem("E_DATA_ROW", f"The row cannot be used: {text}.", f"f:{n}", "x"))
    rejects.close()
    assert rejects.shortened()[-1].message == "6 more rows: the prompt template needs 'topic'."


def test_files_without_a_known_form_come_before_rows_and_are_bounded(gather):
    files = {"bad.jsonl": "{\n" * 9}
    files |= {f"{n}.jsonl": [{"ask": "q", "say": "a"}] * 3 for n in range(30)}
    found = gather(files)
    *shown, columns, broken = found.rejects.shortened()
    assert [p.code for p in shown] == ["E_COLUMNS"] * SHOWN
    assert columns.message == "30 more rows: The row has no known form."
    assert broken.code == "E_DATA_ROW"
    assert found.rejects.count == 99


def test_everything_bad_at_once_through_prepare(make_config, tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps(PAIR) + '\n{"prompt": "", "completion": "x"}' * 30)
    with pytest.raises(TunewrightError) as caught:
        prepare(make_config(f"prepare.source={tmp_path / 'r.jsonl'}"))
    *examples, more = caught.value.problems
    assert [line_of(p) for p in examples] == [2, 3, 4]
    assert "27 more rows: prompt is empty; for plain text" in more.message
    assert caught.value.exit_code == 3


def test_a_prompt_template_with_more_than_names_is_one_problem(make_config, tmp_path):
    (tmp_path / "r.jsonl").write_text("\n".join([json.dumps({**PAIR, "a": {"b": 1}})] * 30))
    config = make_config(
        f"prepare.source={tmp_path / 'r.jsonl'}", "prepare.prompt_template=Say {a.b}"
    )
    with pytest.raises(TunewrightError) as caught:
        prepare(config)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E_CONFIG_VALUE", "prepare.prompt_template")
    assert "stands alone" in problem.message
