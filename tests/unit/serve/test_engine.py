"""Which engine serves what, the command of vLLM, and who may ask."""

from pathlib import Path

import pytest

from tunewright.errors import TunewrightError
from tunewright.serve.asked import RefusedError
from tunewright.serve.engine import Here, chosen
from tunewright.serve.guard import api_key, is_local, names_us, require_guarded, shows_key
from tunewright.serve.queue import GoneError, Queue
from tunewright.serve.servable import AdapterModel, FolderModel, GgufModel
from tunewright.serve.vllm import Place, command, unfit

ADAPTER = AdapterModel("voice", "an adapter", Path("runs/a/adapter"), "org/base", "abc")
MERGED = FolderModel("voice-merged", "a folder", Path("runs/a/merged"))
GGUF = GgufModel("voice-F16", "a file", Path("runs/a/exported/voice-F16.gguf"))
ALL, NONE = Here(vllm=True, gpu=True), Here(vllm=False, gpu=False)


def test_an_engine_is_chosen_with_its_reason():
    assert chosen("auto", GGUF, ALL) == ("llama.cpp", "it is a GGUF file")
    for model in (ADAPTER, MERGED):
        assert chosen("auto", model, ALL) == ("vllm", "it is installed, and there is a GPU")
        assert chosen("auto", model, NONE)[0] == "transformers"
        assert "not installed" in chosen("auto", model, NONE)[1]
        assert "no GPU" in chosen("auto", model, Here(vllm=True, gpu=False))[1]
        assert chosen("transformers", model, ALL) == ("transformers", "it was asked for")
    assert chosen("auto", ADAPTER, ALL, ["The adapter is DoRA"])[0] == "transformers"


@pytest.mark.parametrize(
    ("asked", "model", "here", "missing"),
    [
        ("vllm", MERGED, NONE, ["not installed", "no GPU"]),
        ("vllm", GGUF, ALL, ["served by llama.cpp"]),
        ("transformers", GGUF, ALL, ["served by llama.cpp"]),
        ("llama.cpp", ADAPTER, ALL, ["this is none"]),
    ],
)
def test_what_is_missing_is_said_all_at_once(asked, model, here, missing):
    with pytest.raises(TunewrightError, match="E_ENGINE") as caught:
        chosen(asked, model, here)
    assert caught.value.exit_code == 2
    assert len(caught.value.problems) == len(missing)
    for problem, text in zip(caught.value.problems, missing, strict=True):
        assert text in problem.message
        assert problem.fix


def test_vllm_is_given_the_adapter_with_its_tokenizer_and_template(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("x")
    model = AdapterModel("voice", "", tmp_path, "org/base", "abc", in_4_bits=True)
    words = command(
        model, {"r": 20, "rank_pattern": {"a": 40}}, Place("127.0.0.1", 8080, 4096, 0.7, 0.8)
    )
    assert words == [
        *("vllm", "serve", "org/base", "--tokenizer", str(tmp_path), "--revision", "abc"),
        *("--enable-lora", "--max-lora-rank", "64", "--lora-modules", f"voice={tmp_path}"),
        *("--quantization", "bitsandbytes"),
        *("--chat-template", str(tmp_path / "chat_template.jinja"), "--max-model-len", "4096"),
        *("--override-generation-config", '{"temperature": 0.7, "top_p": 0.8}'),
        *("--allowed-origins", "[]", "--disable-fastapi-docs"),
        *("--host", "127.0.0.1", "--port", "8080"),
    ]


def test_vllm_is_given_a_merged_model_by_its_folder():
    assert command(MERGED, {}, Place("::1", 1, 512, 0, 1.0)) == [
        *("vllm", "serve", "runs/a/merged", "--served-model-name", "voice-merged"),
        *("--max-model-len", "512"),
        *("--override-generation-config", '{"temperature": 0, "top_p": 1.0}'),
        *("--allowed-origins", "[]", "--disable-fastapi-docs"),
        *("--host", "::1", "--port", "1"),
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"trainable_token_indices": [1]}, "tokens"),
        ({"bias": "all"}, "biases"),
        ({"r": 1024}, "1024"),
    ],
)
def test_adapters_that_vllm_cannot_serve_are_told(settings, reason):
    (found,) = unfit(ADAPTER, {"r": 8, "bias": "none"} | settings)
    assert reason in found
    assert unfit(ADAPTER, {"r": 8, "bias": "none", "use_dora": False}) == []
    assert unfit(MERGED, settings) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_an_address_of_this_machine_needs_no_key(host):
    assert is_local(host)
    require_guarded(host, None, allow_without_key=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])
def test_any_other_does(host):
    assert not is_local(host)
    with pytest.raises(TunewrightError, match="no API key"):
        require_guarded(host, None, allow_without_key=False)
    require_guarded(host, "key", allow_without_key=False)
    require_guarded(host, None, allow_without_key=True)


def test_the_key_is_of_the_environment(monkeypatch):
    monkeypatch.setenv("TUNEWRIGHT_API_KEY", " sesame ")
    assert api_key() == "sesame"
    monkeypatch.setenv("TUNEWRIGHT_API_KEY", "  ")
    assert api_key() is None


def test_only_the_key_opens():
    assert shows_key("Bearer sesame", "sesame")
    assert shows_key("bearer  sesame", "sesame")
    assert shows_key(None, None)
    for header_ in (None, "", "sesame", "Basic sesame", "Bearer", "Bearer sesam", "Bearer sesame2"):
        assert not shows_key(header_, "sesame")
    assert shows_key("Bearer " + "schlüssel".encode().decode("latin-1"), "schlüssel")


@pytest.mark.parametrize(
    ("hosts", "ours"),
    [
        (["127.0.0.1:8080"], True),
        (["localhost"], True),
        (["LOCALHOST:9"], True),
        (["[::1]:8080"], True),
        (["evil.example:8080"], False),
        (["127.0.0.1.nip.io"], False),
        (["localhost.evil.example"], False),
        ([], False),
        (["localhost", "evil.example"], False),
    ],
)
def test_names_that_lead_here_and_are_not_ours(hosts, ours):
    assert names_us(hosts, "127.0.0.1") is ours


def test_one_at_a_time_in_order():
    import threading
    import time

    queue, seen = Queue(), []

    def work(number):
        with queue.turn(lambda: True):
            seen.append(number)
            time.sleep(0.01)
            seen.append(number)

    with queue.turn(lambda: True):
        threads = []
        for number in range(4):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            time.sleep(0.02)
        with pytest.raises(GoneError), queue.turn(lambda: False):
            pass
    for thread in threads:
        thread.join()
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3]


def test_too_many_that_wait_are_refused():
    queue = Queue(max_waiting=0)
    with (
        queue.turn(lambda: True),
        pytest.raises(RefusedError, match="Too many") as caught,
        queue.turn(lambda: True),
    ):
        pass
    assert caught.value.status == 429
