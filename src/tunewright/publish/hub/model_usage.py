"""The part of a model's card that says how to run it, in commands that can be copied. Pure."""

import json
import shlex

from tunewright.models.lora import vllm_rank
from tunewright.publish.hub.markdown import code as code_of
from tunewright.publish.hub.model_facts import ModelFacts

_NO_OLLAMA = (
    "Not with Ollama: its templates cannot write chats as this model was trained on them, and with others it "
    "writes nonsense."
)
_ASK = """question = [{{"role": "user", "content": {prompt}}}]
inputs = tokenizer.apply_chat_template(
    question, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**inputs, max_new_tokens=200, {sampling})
print(tokenizer.decode(answer[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def usage(facts: ModelFacts) -> list[str]:
    """Return how the model is run in each program that takes it."""
    how = {"adapter": _adapter, "merged": _merged, "gguf": _gguf, "version": _version}
    return ["## How to run it", *how[facts.kind](facts)]


def _adapter(facts: ModelFacts) -> list[str]:
    place, base = facts.repo_id or "adapter", facts.base.hub_id or facts.base.name
    revision = f", revision={json.dumps(facts.base.revision)}" if facts.base.revision else ""
    grown = "base.resize_token_embeddings(len(tokenizer))\n" if facts.added_tokens else ""
    code = (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")\n'
        f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)}{revision})\n{grown}"
        f'model = PeftModel.from_pretrained(base, "{place}")\n{_ask(facts)}'
    )
    room = vllm_rank({"r": facts.settings.get("lora.r", 16)})
    more = f" --max-lora-rank {room}" if room > 16 else ""
    serve = (
        f"vllm serve {shlex.quote(base)} --enable-lora --lora-modules {_short(facts)}={place}{more}"
    )
    note = []
    if facts.base.hub_id is None:
        note = [f"{code_of(base)} stands for the folder of the base, which is not on the Hub."]
    return [
        "Transformers and PEFT:",
        f"```python\n{code}\n```",
        *(
            [f"Not with vLLM: {'; '.join(facts.not_vllm)}. The merged model can be served."]
            if facts.not_vllm
            else [
                "vLLM, which serves many adapters on one base:",
                f"```shell\n{serve}\n```",
            ]
        ),
        *note,
    ]


def _merged(facts: ModelFacts) -> list[str]:
    place = facts.repo_id or "merged"
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{place}")\n{_ask(facts)}'
    )
    return [
        "Transformers:",
        f"```python\n{code}\n```",
        "vLLM:",
        f"```shell\nvllm serve {place}\n```",
    ]


def _gguf(facts: ModelFacts) -> list[str]:
    place, types = facts.repo_id or "gguf", list(facts.ggufs)
    pick, name = types[-1] if types else "Q8_0", _short(facts)
    llama_cpp = ["llama.cpp:", f"```shell\nllama-server --jinja -hf {place}:{pick}\n```"]
    if not facts.ollama:
        return [*llama_cpp, _NO_OLLAMA]
    files = (
        "The files `template`, `system` and `params` give Ollama the chat template that the model was trained "
        "with. With the Modelfile it has another name:"
    )
    return [
        "Ollama:",
        f"```shell\nollama run hf.co/{place}:{pick}\n```",
        files,
        f"```shell\nhf download {place} --local-dir {name}\ncd {name}\nollama create {name} -f Modelfile\n```",
        *llama_cpp,
    ]


def _version(facts: ModelFacts) -> list[str]:
    shown = _adapter(facts)
    if not facts.ggufs:
        return shown
    file = list(facts.ggufs.values())[-1].get("file")
    create = f"```shell\nollama create {_short(facts)} -f Modelfile\n```"
    ollama = ["Ollama, in the folder `gguf`:", create] if facts.ollama else [_NO_OLLAMA]
    llama_cpp = ["llama.cpp:", f"```shell\nllama-server --jinja -m gguf/{file}\n```"]
    return [*shown, *llama_cpp, *ollama]


def _ask(facts: ModelFacts) -> str:
    given = [f"{k}={facts.sampling[k]}" for k in ("temperature", "top_p") if k in facts.sampling]
    greedy = facts.sampling.get("temperature") == 0
    sampling = "do_sample=False" if greedy else ", ".join(["do_sample=True", *given])
    return _ASK.format(prompt=json.dumps(facts.prompt, ensure_ascii=False), sampling=sampling)


def _short(facts: ModelFacts) -> str:
    return facts.title.rpartition("/")[2]
