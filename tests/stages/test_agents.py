"""Two agents on one base: from their rows to adapters in the store, and whether they differ."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from commands import here
from peft import PeftModel
from support import SAMPLES, SMALL, shallow_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunewright import agents, pipeline
from tunewright.artifacts import load_artifact, sha256, writing
from tunewright.cli import main
from tunewright.config.load import load_config
from tunewright.config.overrides import apply
from tunewright.errors import TunewrightError
from tunewright.evaluate import compare_agents
from tunewright.models import weights_kept
from tunewright.models._folders import resolve_model
from tunewright.models._load import load_model
from tunewright.targets import team_of

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("critic", "synthesizer")
OWN = {name: f"{name}.jsonl" for name in NAMES}
QUICK = (
    *(option for option in SMALL if not option.startswith(("prepare.m", "train.max_length"))),
    "train.max_length=256",
    "train.lora.r=8",
    "train.num_train_epochs=1",
    "compare.num_prompts=20",
    "export.quantization=[Q8_0]",
)


def write(folder, sources=OWN, **more):
    """Write a config of agents in a folder with their rows and a base, and return its path."""
    (folder / "base").mkdir()
    shallow_base(folder / "base")
    for name in NAMES:
        shutil.copyfile(SAMPLES / "agents" / f"{name}.jsonl", folder / f"{name}.jsonl")
    tree = {"name": "duo", "model": {"model_name_or_path": "base"}}
    for option in QUICK:
        apply(tree, option)
    tree |= {"agents": {name: {"prepare": {"source": file}} for name, file in sources.items()}}
    (folder / "team.yaml").write_text(yaml.safe_dump(tree | more, sort_keys=False))
    return "team.yaml"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which one command has made and published both. Shared: read only."""
    folder = tmp_path_factory.mktemp("team")
    done = here("run", write(folder), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copied(ran, tmp_path, monkeypatch):
    """A copy of it, as the current folder."""
    shutil.copytree(ran, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_one_command_publishes_both_and_a_loader_finds_them_by_the_map(ran):
    entries = json.loads((ran / "store" / "AGENT_MODEL_MAP.json").read_text())
    assert set(entries) == set(NAMES)
    answers = {}
    for agent, entry in entries.items():
        version = ran / "store" / entry["path"]
        assert sha256(version / "manifest.json") == entry["manifest_sha256"]
        files = json.loads((version / "manifest.json").read_text())["files"]
        for name, expected in files.items():
            assert sha256(version / name) == expected["sha256"]
        answers[agent] = answer(ran / entry["base"], version / "adapter")
    assert all(answers.values())
    assert answers["critic"] != answers["synthesizer"]


def answer(base, adapter):
    """Answer as a program that knows nothing of Tunewright does."""
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = AutoModelForCausalLM.from_pretrained(base)
    model = PeftModel.from_pretrained(model, adapter).eval()
    asked = [{"role": "user", "content": "Review this plan."}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
    made = model.generate(**ids, max_new_tokens=12, do_sample=False)
    return tokenizer.decode(made[0, ids["input_ids"].shape[1] :])


def test_an_adapter_is_the_one_that_it_would_be_alone(ran, tmp_path, monkeypatch):
    """Sharing the weights of the base changes nothing, whoever trained on them before."""
    alone = yaml.safe_load((ran / "team.yaml").read_text())
    own = alone.pop("agents")["synthesizer"]
    alone["prepare"] |= {"source": str(ran / own["prepare"]["source"])}
    alone |= {"name": "duo-synthesizer", "output_dir": str(tmp_path / "alone")}
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(alone))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ran / "base", "base")
    pipeline.run(load_config("alone.yaml"), until="train")
    file = "adapter/adapter_model.safetensors"
    assert sha256(tmp_path / "alone" / file) == sha256(ran / "runs/duo/synthesizer" / file)


def test_the_summary_says_what_is_known_of_each(ran):
    found = json.loads((ran / "runs" / "duo" / "agents.json").read_text())
    assert set(found["agents"]) == set(NAMES)
    for agent, of in found["agents"].items():
        run = ran / "runs" / "duo" / agent
        assert of["rows"] == len((run / "dataset" / "train.jsonl").read_text().splitlines())
        evaluated = load_artifact(run / "evaluation", "evaluation").facts
        assert of["verdict"] == evaluated["verdict"]
        assert of["perplexity_ratio"] == evaluated["perplexity"]["heldout"]["ratio"]
        assert (ran / "store" / agent / "duo" / of["version"]).is_dir()
        assert of["failed"] is None
    vllm, *ollama = found["start"]
    assert vllm.startswith("vllm serve ")
    for agent in NAMES:
        path = ran / "store" / agent / "duo" / found["agents"][agent]["version"] / "adapter"
        assert f"{agent}={path}" in vllm
        assert any(f"tunewright/duo-{agent}" in line for line in ollama)


def test_the_cross_matrix_is_that_of_transformers(ran):
    facts = load_artifact(ran / "runs" / "duo" / "cross", "cross", verify=True).facts
    assert {one["finding"] for one in facts["specialisation"].values()} == {"specialised"}
    model = AutoModelForCausalLM.from_pretrained(ran / "base", dtype=torch.float32)
    adapter = ran / "runs" / "duo" / "critic" / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(model, adapter).eval()
    for whose in NAMES:
        got = facts["perplexity"][whose]["critic"]
        held_out = ran / "runs" / "duo" / whose / "dataset" / "eval.jsonl"
        assert got == pytest.approx(perplexity(model, tokenizer, held_out), rel=1e-4)


def perplexity(model, tokenizer, file):
    """Compute it row by row, of what the template marks as the assistant's."""
    nats, count = 0.0, 0
    for line in file.read_text().splitlines():
        messages = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        asked = tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"][:256]
        first = len(tokenizer(asked, add_special_tokens=False)["input_ids"])
        # what follows the token that ends the turn is the template's
        last = len(ids) - ids[::-1].index(tokenizer.eos_token_id)
        with torch.inference_mode():
            logits_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for at in range(first, last):
            nats -= float(logits_TV[at - 1, ids[at]])
            count += 1
    return float(torch.tensor(nats / count).exp())


def test_adapters_that_were_mixed_up_are_noticed(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(ran)
    team = team_of("team.yaml")
    datasets = {n: load_artifact(Path(c.run_dir) / "dataset", "dataset") for n, c in team.configs.items()}  # fmt: skip
    adapters = {n: load_artifact(Path(c.run_dir) / "adapter", "adapter") for n, c in team.configs.items()}  # fmt: skip
    swapped = dict(zip(NAMES, reversed(list(adapters.values())), strict=True))
    made = compare_agents(team.configs, datasets, swapped, tmp_path / "cross")
    assert {one["finding"] for one in made.facts["specialisation"].values()} == {"misplaced"}


def test_copies_of_one_original_count_once(ran, tmp_path, monkeypatch):
    """Each held-out row is there three times, as variations of a source are."""
    monkeypatch.chdir(ran)
    team = team_of("team.yaml")
    before = load_artifact(ran / "runs" / "duo" / "cross", "cross").facts["specialisation"]
    datasets, adapters = {}, {}
    for name, config in team.configs.items():
        run = Path(config.run_dir)
        adapters[name] = load_artifact(run / "adapter", "adapter")
        with writing(tmp_path / name, "dataset", settings={}, parents={}) as draft:
            lines = (run / "dataset" / "eval.jsonl").read_text().splitlines()
            rows = [json.loads(line) | {"source_id": f"shot {n}"} for n, line in enumerate(lines)]
            text = "".join(json.dumps(row) + "\n" for row in rows for _ in range(3))
            (draft.path / "eval.jsonl").write_text(text)
        datasets[name] = load_artifact(tmp_path / name, "dataset")
    made = compare_agents(team.configs, datasets, adapters, tmp_path / "cross").facts
    for name, one in made["specialisation"].items():
        assert (one["rows"], one["sources"]) == (3 * before[name]["rows"], before[name]["sources"])
        for end in ("value", "low", "high"):
            assert one["ratio"][end] == pytest.approx(before[name]["ratio"][end], rel=1e-4)


def test_a_second_run_finds_everything_done(copied, capsys):
    before = sha256(copied / "runs" / "duo" / "cross" / "manifest.json")
    assert main(["run", "team.yaml", "--json"]) == 0
    capsys.readouterr()
    assert sha256(copied / "runs" / "duo" / "cross" / "manifest.json") == before
    results = agents.run(team_of("team.yaml"), until="publish")
    assert all(one.skipped for result in results.values() for one in result.made)


def test_another_adapter_is_compared_anew(copied):
    team = team_of("runs/duo", ["agents.critic.train.max_steps=2"])
    before = load_artifact(copied / "runs" / "duo" / "cross", "cross")
    results = agents.run(agents.only(team, ["critic"]), until="train")
    assert [one.stage for one in results["critic"].made if not one.skipped][-1] == "train"
    after = agents.cross(team)
    assert after.digest != before.digest
    assert after.parents["synthesizer/adapter"] == before.parents["synthesizer/adapter"]
    assert after.facts["perplexity"]["critic"]["synthesizer"] == pytest.approx(
        before.facts["perplexity"]["critic"]["synthesizer"], rel=1e-6
    )


def test_each_agent_has_repositories_of_its_own(copied, capsys):
    flags = ["--dry-run", "--repo-id", "me/duo", "--json"]
    assert main(["push", "team.yaml", *flags]) == 0
    pushed = json.loads(capsys.readouterr().out)["pushed"]
    assert [one["url"].rpartition("/me/")[2] for one in pushed] == ["duo-critic", "duo-synthesizer"]
    assert all("adapter_model.safetensors" in one["files"] for one in pushed)


def test_an_agent_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    target = write(tmp_path, {"broken": "nosuch.jsonl", "critic": "critic.jsonl"})
    (tmp_path / "nosuch.jsonl").write_text('{"messages": []}\n')
    assert main(["run", target, "--until", "check"]) == 3
    shown = capsys.readouterr()
    assert (tmp_path / "runs" / "duo" / "critic" / "check" / "manifest.json").is_file()
    assert "ERROR E_DATA_ROW: broken: " in shown.err
    assert "Traceback" not in shown.err
    lines = shown.out.splitlines()
    assert any(line.startswith("broken") and "failed" in line for line in lines)
    # The same command goes on where the mistake is mended.
    shutil.copyfile("synthesizer.jsonl", "nosuch.jsonl")
    assert main(["run", target, "--until", "check"]) == 0
    assert (tmp_path / "runs" / "duo" / "broken" / "check" / "manifest.json").is_file()


def test_commands_for_all_and_for_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    target = write(tmp_path)
    assert main(["prepare", target]) == 0
    shown = capsys.readouterr().out
    for agent in NAMES:
        assert f"\n{agent}\n" in shown
        assert (tmp_path / "runs" / "duo" / agent / "dataset" / "manifest.json").is_file()
    assert main(["check", target, "--agent", "critic"]) == 0
    assert (tmp_path / "runs" / "duo" / "critic" / "check").is_dir()
    assert not (tmp_path / "runs" / "duo" / "synthesizer" / "check").exists()
    capsys.readouterr()
    assert main(["check", target, "--agent", "nosuch"]) == 2
    assert "There are: critic, synthesizer." in capsys.readouterr().err
    assert main(["check", "critic.jsonl", "--agent", "critic"]) == 2
    assert "this one has none" in capsys.readouterr().err


def test_start_lines_keep_apart_what_one_server_cannot_serve(ran, tmp_path):
    for name in ("runs", "base"):
        shutil.copytree(ran / name, tmp_path / name)
    shutil.rmtree(tmp_path / "runs" / "duo" / "critic" / "published")
    team = team_of(str(tmp_path / "runs" / "duo"))
    adapter = tmp_path / "runs" / "duo" / "critic" / "adapter"
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}")
    lines = [line for line in agents.summary(team, {})["start"] if line.startswith("vllm")]
    assert [line.count("--lora-modules") for line in lines] == [1, 1]
    assert [line[-11:] for line in lines] == ["--port 8080", "--port 8081"]
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"use_dora": True}))
    told = [line for line in agents.summary(team, {})["start"] if line.startswith("#")]
    assert len(told) == 1
    assert "critic is not for vLLM" in told[0]


def test_weights_are_read_once_and_stay_as_they_are(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(resolve_model("tunewright/tiny"), base)
    ids = torch.arange(40)[None]
    weights = (base / "model.safetensors").read_bytes()
    with weights_kept():
        first = load_model(base)
        expected = first(ids).logits
        (base / "model.safetensors").unlink()
        second = load_model(base)
        shared = zip(first.parameters(), second.parameters(), strict=True)
        assert all(one.data_ptr() == two.data_ptr() for one, two in shared)
        assert torch.equal(second(ids).logits, expected)
        # What is trained beside them touches nothing.
        second.requires_grad_(requires_grad=False)
        assert next(first.parameters()).requires_grad
        # Who writes into the base past autograd, as OLoRA does, has weights of its own.
        (base / "model.safetensors").write_bytes(weights)
        own = load_model(base, shared=False)
        next(own.parameters()).data -= 1
        assert torch.equal(load_model(base)(ids).logits, expected)
        (base / "model.safetensors").unlink()
        # Who writes into them all the same is noticed: the weights are read again, and are gone here.
        with torch.no_grad():
            next(second.parameters()).mul_(2)
        with pytest.raises(TunewrightError, match="E_MODEL"):
            load_model(base)
    with pytest.raises(TunewrightError, match="E_MODEL"):
        load_model(base)
