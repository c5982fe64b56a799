"""Users' existing lines work after `import chatglm`, whatever is imported first, and no code of a folder ever runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import VERSIONS

SNIPPET = """
{imports}
import torch
path = {path!r}
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModel.from_pretrained(path, trust_remote_code=True).float()
model = model.eval()
response, history = model.chat(tokenizer, "你好", history=[], max_new_tokens=4)
{rest}
print("fine", type(model).__name__, type(tokenizer).__name__)
"""
ROLES = """
for response, history, past_key_values in model.stream_chat(tokenizer, "晚上睡不着应该怎么办", history=history,
                                                            past_key_values=None, return_past_key_values=True,
                                                            max_new_tokens=4):
    pass
inputs = tokenizer.build_chat_input("再见", history=history, role="user")
eos = [tokenizer.eos_token_id, tokenizer.get_command("<|user|>"), tokenizer.get_command("<|observation|>")]
outputs = model.generate(**inputs, max_length=inputs["input_ids"].shape[1] + 4, num_beams=1, do_sample=True, top_p=0.8,
                         temperature=0.8, eos_token_id=eos)
text = tokenizer.decode(outputs.tolist()[0][len(inputs["input_ids"][0]):-1])
response, history = model.process_response(text, history)
assert history[-1]["role"] == "assistant"
"""
PAIRS = """
for response, history in model.stream_chat(tokenizer, "晚上睡不着应该怎么办", history=history, max_new_tokens=4):
    pass
inputs = tokenizer(["你好", "hello"], return_tensors="pt", padding=True)
outputs = model.generate(**inputs, max_new_tokens=3)
assert outputs.shape[0] == 2
"""
ORDERS = {
    "chatglm first": "import chatglm\nfrom transformers import AutoModel, AutoTokenizer",
    "transformers first": "from transformers import AutoModel, AutoTokenizer\nimport chatglm",
    "transformers half": "import transformers\nimport chatglm\nfrom transformers import AutoModel, AutoTokenizer",
    "chatglm alone": "from chatglm import AutoModel, AutoTokenizer",
}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("order", ORDERS)
def test_existing_lines_in_any_order_of_imports(order: str, checkpoint) -> None:
    out = run(SNIPPET.format(imports=ORDERS[order], path=str(checkpoint("chatglm3")), rest=ROLES))
    assert "fine ChatGLMForConditionalGeneration SentencePieceTokenizer" in out


def test_existing_lines_of_every_generation(checkpoint) -> None:
    """One after another in one process: to import torch takes longer than each."""
    rests = {"chatglm": PAIRS, "chatglm2": PAIRS, "glm4": ROLES}
    imports = ORDERS["chatglm first"]
    lines = (SNIPPET.format(imports=imports, path=str(checkpoint(name)), rest=rest) for name, rest in rests.items())
    assert run("".join(lines)).count("fine ") == len(rests)


def with_code(folder: Path, mark: Path, *more: str) -> Path:
    """The folder with files of code in it, each ready to leave a mark."""
    for name in ("configuration_chatglm", "modeling_chatglm", "tokenization_chatglm", *more):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').write({name!r})\nraise SystemExit(3)\n", "utf-8")
    return folder


def test_code_in_the_folder_is_never_run(copied, tmp_path: Path) -> None:
    """With the files that auto_map names in place: none leaves its mark."""
    mark = tmp_path / "executed"
    folders = [str(with_code(copied(version), mark, "quantization")) for version in VERSIONS]
    run(f"""
import chatglm
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers import AutoModelForSequenceClassification
for path in {folders!r}:
    for trust in (True, None):
        options = {{"trust_remote_code": trust}}
        AutoConfig.from_pretrained(path, **options)
        AutoTokenizer.from_pretrained(path, **options)
        for auto in (AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM):
            model = auto.from_pretrained(path, **options)
            assert type(model).__module__.startswith("chatglm."), type(model)
            assert type(auto.from_config(model.config, **options)) is type(model)
        if not path.endswith("/chatglm"):
            model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=3, **options)
            assert type(model).__module__.startswith("chatglm."), type(model)
    chatglm.load(path).close()
""")
    assert not mark.exists()


def test_processors_run_no_code_of_the_folder_either(copied, tmp_path: Path) -> None:
    """Whatever Auto class, and whatever its files name: the tokenizer comes, or an error, and nothing is run."""
    mark = tmp_path / "executed"
    folders = [str(with_code(copied(version), mark, "evil")) for version in ("chatglm", "chatglm3", "glm4")]
    autos = ["AutoProcessor", "AutoTokenizer", "AutoImageProcessor", "AutoFeatureExtractor"]
    autos += ["AutoModelForTokenClassification", "AutoModelForQuestionAnswering"]
    named = {**dict.fromkeys(autos, "evil.X"), "AutoTokenizer": ["evil.X", None]}
    pipelines = {"text-generation": {"impl": "evil.P", "pt": ["AutoModel"], "type": "text"}}
    for folder in map(Path, folders):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "auto_map": named, "custom_pipelines": pipelines}))
    run(f"""
import json, chatglm, transformers
from pathlib import Path
named = {named!r}
for folder in map(Path, {folders!r}):
    kind = type(transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True))
    assert kind.__module__.startswith("chatglm."), kind
    saved = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    for tokenizer in (saved, {{**saved, "auto_map": named, "tokenizer_class": "Nobody"}}):
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
        for more in ({{}}, {{"image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor"}}):
            for name in ("preprocessor_config.json", "processor_config.json"):
                (folder / name).write_text(json.dumps({{"auto_map": named, **more}}), "utf-8")
            for auto in {autos!r}:
                try:
                    getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True)
                except (ValueError, OSError, ImportError):
                    pass
            try:
                transformers.pipeline("text-generation", model=str(folder), trust_remote_code=True)
            except (ValueError, OSError):
                pass
""")
    assert not mark.exists()


def test_tokenizer_configs_that_say_less(copied) -> None:
    """No tokenizer_config.json at all, or one without the class: the folder is enough."""
    from transformers import AutoTokenizer as Theirs

    from chatglm import AutoTokenizer

    for version in VERSIONS:
        folder = copied(version)
        expected = AutoTokenizer.from_pretrained(folder)("你好")["input_ids"]
        (folder / "tokenizer_config.json").unlink()
        assert AutoTokenizer.from_pretrained(folder)("你好")["input_ids"] == expected
        assert Theirs.from_pretrained(folder, trust_remote_code=True)("你好")["input_ids"] == expected


def test_no_clash_with_native_glm(tmp_path: Path) -> None:
    """transformers' own `glm` folders load as ever, beside ours."""
    from transformers import AutoModelForCausalLM, GlmConfig, GlmForCausalLM

    import chatglm  # noqa: F401

    config = GlmConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
    )
    GlmForCausalLM(config).save_pretrained(tmp_path)
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), GlmForCausalLM)
