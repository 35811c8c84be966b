"""T5, T6: `check` refuses data of which too little would be learned, and says by how much."""

import shutil

import pytest
from commands import here
from support import SAMPLES

NO_END = (
    '{%- for m in messages %}{{ "<|im_start|>" + m.role + "\\n" + m.content + "\\n" }}{%- endfor %}'
    '{%- if add_generation_prompt %}{{ "<|im_start|>assistant\\n" }}{%- endif %}'
)


@pytest.fixture
def folder(tmp_path):
    lines = (SAMPLES / "shell-helper.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_some_rows_without_an_answer_are_told_and_too_many_refused(folder):
    cut = ("--set", "train.max_length=24", "--set", "check.max_cut=1")
    told = here("check", "rows.jsonl", *cut, "--set", "check.max_unlearned=0.6", cwd=folder)
    assert told.returncode == 0, told.stderr
    assert "WARNING W_UNLEARNED: 13 of 24 rows" in told.stdout
    refused = here("check", "rows.jsonl", *cut, cwd=folder)
    assert refused.returncode == 3
    assert "ERROR E_NOTHING_TO_LEARN: 13 of 24 rows" in refused.stderr


def test_a_template_that_writes_no_end_is_refused(folder):
    (folder / "own.jinja").write_text(NO_END)
    done = here("check", "rows.jsonl", "--set", "model.chat_template=own.jinja", cwd=folder)
    assert done.returncode == 3
    assert "ERROR E_EOS_NOT_LEARNED: The end of 24 of 24 answers is not learned" in done.stderr
    assert "the end is learned in 0 of 24 rows" in done.stdout


def test_a_template_that_is_a_bomb_or_reaches_out_is_refused_in_a_models_folder_as_well(folder):
    """S1, S2: the template that comes with a model, in its own file and among the tokenizer's settings."""
    from tunewright.models._folders import resolve_model

    for number, place in enumerate(("chat_template.jinja", "tokenizer_config.json")):
        model = folder / f"model{number}"
        shutil.copytree(resolve_model("tunewright/tiny"), model)
        evil = "{{ ''.__class__.__mro__ }}"
        if place.endswith(".json"):
            (model / "chat_template.jinja").unlink()
            text = (model / place).read_text(encoding="utf-8").rstrip()
            assert text.endswith("}")
            evil = f'{text[:-1]}, "chat_template": "{evil}"}}'
        (model / place).write_text(evil, encoding="utf-8")
        done = here(
            *("check", "rows.jsonl", "--set", f"model.model_name_or_path={model}"), cwd=folder
        )
        assert done.returncode == 9, done.stderr
        assert "ERROR E_TEMPLATE_UNSAFE" in done.stderr
