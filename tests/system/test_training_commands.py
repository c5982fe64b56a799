"""`chatglm finetune`, `merge`, `evaluate` and `pretrain`, run as users run them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from test_chat_command import ENVIRONMENT, chatglm

from chatglm.cli import main
from chatglm.output import working_in
from test_output import small_files

TURNS = [("你是谁？", "我是小智。"), ("几岁了？", "三岁啦！")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    row = {"conversation": [{"human": question, "assistant": answer} for question, answer in TURNS]}
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    return file


def here(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> tuple[str, str]:
    """In this process, which has torch already."""
    assert main([str(argument) for argument in arguments]) == status
    out, err = capsys.readouterr()
    return out, err


FEW = ("--cpu", "--max-length", 64, "--log-every", 5, "--set", "training_args.report_to=none")


def test_from_dialogues_to_a_merged_model_that_says_them(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    """The run in a process of its own, with nothing of libraries on stderr."""
    base = checkpoint("chatglm3")
    out, err = chatglm(
        *("finetune", data, "--model", base, "--output", tmp_path / "out", "--method", "lora", "--lora-rank", 16),
        *("--steps", 60, "--lr", "1e-2", "--set", "peft_config.lora_dropout=0", *FEW),
    )
    assert f"Try it: chatglm chat --model {base} --adapter {tmp_path / 'out'}" in out
    lines = err.splitlines()
    assert lines[0].startswith("1 dialogue ")
    assert lines[1].startswith("lora: ")
    assert all(line.startswith("step ") for line in lines[2:])
    assert lines[2].startswith("step 5/60  loss ")
    out, err = here(capsys, "merge", tmp_path / "out", "--output", tmp_path / "merged")
    assert out.startswith("probe of ")
    assert f"merged and verified: {tmp_path / 'merged'}" in out
    assert err == ""
    out, _ = here(capsys, "chat", TURNS[0][0], "--model", tmp_path / "merged", "--dtype", "float32", "--temperature", 0)
    assert out.strip() == TURNS[0][1]
    out, err = here(capsys, "evaluate", data, "--model", tmp_path / "merged", "--max-new-tokens", 12, "--json")
    numbers = json.loads(out)
    assert numbers["loss"] < 1
    assert numbers["bleu-4"] > 99
    assert err == ""


def test_an_official_file_with_overrides(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    """A file of ChatGLM3's, its data's folder, flags over the file, --set over flags; what is saved says so."""
    file = tmp_path / "ptuning.yaml"
    file.write_text(
        "data_config: {train_file: data.jsonl, val_file: data.jsonl, num_proc: 16}\n"
        "max_input_length: 30\nmax_output_length: 20\n"
        "training_args: {output_dir: ./no, max_steps: 3000, learning_rate: 5e-5, evaluation_strategy: steps,\n"
        "  eval_steps: 500, use_cpu: true, predict_with_generate: true, generation_config: {max_new_tokens: 3}}\n"
        "peft_config: {peft_type: PREFIX_TUNING, task_type: CAUSAL_LM, num_virtual_tokens: 64}\n"
    )
    out, _ = here(
        capsys,
        *("finetune", tmp_path, "--model", checkpoint("chatglm2"), "--settings", file, "--output", tmp_path / "out"),
        *("--steps", 3, "--lr", 0.5, "--set", "training_args.learning_rate=0.25", "--prefix-tokens", 7),
        *("--loss", "last", "--eval-every", 3, "--set", "training_args.report_to=none", "--seed", 5),
    )
    assert f"--prefix {tmp_path / 'out'}" in out
    saved = yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text("utf-8"))
    assert saved["method"] == "ptuning"
    assert saved["peft_config"]["num_virtual_tokens"] == 7
    assert saved["max_length"] == 51
    assert saved["loss"] == "last"
    assert saved["training_args"]["learning_rate"] == 0.25
    assert saved["training_args"]["max_steps"] == 3
    assert saved["training_args"]["seed"] == 5
    assert saved["data_config"]["folder"] == str(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text("utf-8").splitlines()]
    assert any("eval_rouge-l" in record for record in records)


def test_a_method_over_the_file_s(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    file = tmp_path / "lora.yaml"
    file.write_text("peft_config: {peft_type: LORA, r: 4}\n")
    arguments = ("finetune", data, "--model", checkpoint("chatglm3"), "--settings", file, "--steps", 1, *FEW)
    here(capsys, *arguments, "--output", tmp_path / "freeze", "--method", "freeze", "--layers", 1)
    saved = yaml.safe_load((tmp_path / "freeze" / "settings.yaml").read_text("utf-8"))
    assert (saved["method"], saved["peft_config"], saved["trainable_layers"]) == ("freeze", None, 1)
    here(capsys, *arguments, "--output", tmp_path / "lora", "--target-modules", "query_key_value,dense")
    saved = yaml.safe_load((tmp_path / "lora" / "settings.yaml").read_text("utf-8"))
    assert saved["peft_config"]["target_modules"] == ["query_key_value", "dense"]
    assert saved["peft_config"]["r"] == 4


def test_flags_go_before_what_the_file_says_otherwise(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    """--epochs over a file's max_steps, --save-every over its strategy; a method in the file keeps its peft_config."""
    file = tmp_path / "run.yaml"
    file.write_text("method: lora\npeft_config: {r: 4}\ntraining_args: {max_steps: 3000, save_strategy: no}\n")
    here(
        capsys,
        *("finetune", data, "--model", checkpoint("chatglm3"), "--settings", file, "--output", tmp_path / "a b", *FEW),
        *("--epochs", 2, "--save-every", 1, "--method", "lora", "--target-modules", "dense, query_key_value"),
    )
    saved = yaml.safe_load((tmp_path / "a b" / "settings.yaml").read_text("utf-8"))
    assert (saved["peft_config"]["r"], saved["training_args"]["save_strategy"]) == (4, "steps")
    assert saved["peft_config"]["target_modules"] == ["dense", "query_key_value"]
    assert sorted(folder.name for folder in (tmp_path / "a b").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    file.write_text("peft_config: {peft_type: lora, r: 4}\n")
    out, _ = here(
        capsys,
        *("finetune", data, "--model", checkpoint("chatglm3"), "--settings", file, "--output", tmp_path / "c d", *FEW),
        *("--steps", 1, "--method", "lora"),
    )
    assert yaml.safe_load((tmp_path / "c d" / "settings.yaml").read_text("utf-8"))["peft_config"]["r"] == 4
    assert f"--adapter '{tmp_path / 'c d'}'" in out


def test_evaluate_lists_the_rows_that_it_skips(data: Path, checkpoint, capsys) -> None:
    data.write_text(data.read_text("utf-8") + '{"messages": 3}\n', "utf-8")
    out, err = here(
        capsys, "evaluate", data, "--model", checkpoint("chatglm3"), "--samples", 0, "--skip-bad-rows", "--json"
    )
    assert json.loads(out)["learned_tokens"]
    assert f"{data}:2: messages: expected a list" in err


def test_preview_trains_nothing(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    out, _ = here(capsys, "finetune", "preview", data, "--model", checkpoint("chatglm3"), "--loss", "last")
    assert "我是小智" in out
    assert "⟦" in out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.jsonl"]


def test_resume_and_overwrite(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    arguments = ["finetune", data, "--model", checkpoint("chatglm3"), "--output", tmp_path / "out", "--lr", 0.01, *FEW]
    here(capsys, *arguments, "--steps", 4, "--save-every", 2)
    _, err = here(capsys, *arguments, "--steps", 4, status=1)
    assert err.startswith(f"chatglm: {tmp_path / 'out'}: exists already")
    out, err = here(capsys, *arguments, "--steps", 6, "--save-every", 2, "--resume")
    assert f"resuming from {tmp_path / 'out' / 'checkpoint-4'}" in err
    assert out.startswith("6 steps")
    out, _ = here(capsys, *arguments, "--steps", 2, "--overwrite")
    assert out.startswith("2 steps")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["finetune", "nowhere.jsonl", "--output", "OUT", "--model", "MODEL"], "nowhere.jsonl: no such file"),
        (["finetune", "DATA", "--model", "MODEL"], "say where the result goes with --output"),
        (["finetune", "--model", "MODEL", "--output", "OUT"], "no data is given"),
        (["finetune", "DATA", "DATA", "--model", "MODEL"], "expected one DATA, got"),
        (["finetune", "DATA", "--model", "MODEL", "--set", "lr=3"], "unknown key 'lr'"),
        (["finetune", "DATA", "--model", "MODEL", "--method", "qlora"], "method is 'qlora'"),
        (["finetune", "DATA", "--model", "MODEL", "--settings", "DATA"], "data.jsonl: "),
        (
            ["finetune", "DATA", "--model", "MODEL", "--output", "OUT", "--method", "freeze", "--layers", "0"],
            "trainable_layers is 0",
        ),
        (
            ["finetune", "DATA", "--model", "MODEL", "--output", "OUT", "--layers", "1"],
            "--layers is for --method freeze",
        ),
        (["finetune", "DATA", "--model", "MODEL", "--set", "data_config=3"], "data_config: expected a mapping"),
        (["merge", "MODEL", "--output", "OUT"], "no adapter_config.json"),
        (
            ["finetune", "DATA", "--model", "MODEL", "--output", "OUT", "--dialogues", "2"],
            "--dialogues: is an option of `chatglm finetune preview`",
        ),
        (
            ["finetune", "DATA", "--model", "MODEL", "--output", "OUT", "--epochs", "inf"],
            "num_train_epochs is inf; must be above 0, and finite",
        ),
        (
            ["finetune", "DATA", "--model", "MODEL", "--output", "OUT", "--set", "peft_config.lora_dropout=1.5"],
            "peft_config.lora_dropout is 1.5; must be a share below 1",
        ),
        (
            [
                "finetune",
                "DATA",
                "--model",
                "MODEL",
                "--output",
                "OUT",
                "--set",
                "training_args.run_name=" + "[" * 9999,
            ],
            "--set training_args.run_name: the value is nested too deeply",
        ),
        (["evaluate", "DATA", "--model", "MODEL", "--cloze", "--samples", "0"], "--samples: is for dialogues"),
        (["evaluate", "DATA", "--model", "MODEL", "--cloze", "--skip-bad-rows"], "--skip-bad-rows: is for dialogues"),
        (["evaluate", "DATA", "--model", "MODEL", "--normalize", "mean"], "--normalize: is for multiple choice"),
        (["evaluate", "DATA", "--model", "MODEL", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["merge", "MODEL", "--output", "OUT", "--device", "abacus"], "no adapter_config.json"),
        (["finetune", "DATA", "--model", "MODEL", "--layers", "2"], "--layers is for --method freeze, and the method"),
        (
            ["finetune", "DATA", "--model", "MODEL", "--prefix-tokens", "2", "--method", "full"],
            "is for --method ptuning",
        ),
        (["finetune", "DATA", "--model", "MODEL", "--generate", "--output", "OUT"], "--val-file), and there is none"),
        (
            ["pretrain", "DATA", "--model", "MODEL", "--lora-rank", "2"],
            "--lora-rank is for --method lora, and the method",
        ),
        (["pretrain", "DATA", "--output", "OUT", "--config", "DATA"], "data.jsonl: no config.json"),
        (["pretrain", "DATA", "--output", "OUT", "--config", "nowhere"], "nowhere: no config.json"),
        (["pretrain", "DATA", "--output", "OUT", "--config", "~no-such-user"], "~no-such-user: no config.json"),
        (
            ["finetune", "~no-such-user/a.jsonl", "--model", "MODEL", "--output", "OUT"],
            "~no-such-user/a.jsonl: no such file",
        ),
        (["evaluate", "--cloze", "~no-such-user/a.jsonl", "--model", "MODEL"], "~no-such-user/a.jsonl: cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(
    arguments: list[str], said: str, data: Path, checkpoint: Callable[[str], Path], tmp_path: Path, capsys
) -> None:
    places = {"DATA": data, "MODEL": checkpoint("chatglm3"), "OUT": tmp_path / "out"}
    before = sorted(tmp_path.rglob("*"))
    _, err = here(capsys, *(places.get(word, word) for word in arguments), status=1)
    assert err.startswith("chatglm: ")
    assert said in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_pretraining_and_cloze(checkpoint, tmp_path: Path, capsys) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{n}。春眠不觉晓，处处闻啼鸟。\n" for n in range(8)), "utf-8")
    out, err = here(
        capsys,
        *("pretrain", text, "--model", checkpoint("chatglm"), "--output", tmp_path / "out", "--split", "line"),
        *("--hold-out", 0.25, "--steps", 3, *FEW, "--lr", 0.01, "--set", "infill.span_share=0.5"),
    )
    assert "6 documents" in err
    assert "eval_loss" in err
    assert f"chatglm chat --model {tmp_path / 'out'}" in out
    saved = yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text("utf-8"))
    assert (saved["method"], saved["infill"]["span_share"], saved["texts"]["split"]) == ("full", 0.5, "line")
    questions = tmp_path / "questions.jsonl"
    rows = [{"context": "春眠不觉[MASK]，", "choices": ["晓", "鸟"], "label": 0}] * 3
    questions.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    out, _ = here(capsys, "evaluate", questions, "--model", tmp_path / "out", "--cloze", "--json")
    assert json.loads(out)["questions"] == 3
    assert json.loads(out)["accuracy"] in (0, 1)


def test_a_fresh_model(checkpoint, tmp_path: Path, capsys) -> None:
    text = tmp_path / "text.txt"
    text.write_text("春眠不觉晓，处处闻啼鸟。" * 9, "utf-8")
    here(
        capsys,
        *("pretrain", text, "--config", checkpoint("glm4") / "config.json", "--output", tmp_path / "out"),
        *("--steps", 1, *FEW),
    )
    saved = yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text("utf-8"))
    assert saved["training_args"]["learning_rate"] == 2e-4
    assert (tmp_path / "out" / "tokenizer.model").is_file()


@pytest.mark.parametrize("command", ["finetune", "merge", "evaluate", "pretrain"])
def test_help_costs_no_torch(command: str) -> None:
    code = (
        f"import sys; from chatglm.cli import main\ntry: main([{command!r}, '--help'])\nexcept SystemExit: pass\n"
        "loaded = [m for m in ('torch', 'transformers', 'peft') if m in sys.modules]\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--model" in done.stdout


def test_the_documented_line_for_two_processes_is_one_training(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    """The line of docs/training.md, on CPUs: the losses of one process with twice the batch."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text("utf-8")
    (line,) = re.findall(r"^torchrun .*$", text, re.MULTILINE)
    places = {"DATA": str(data), "path/to/chatglm3-6b": str(checkpoint("chatglm3")), "out": str(tmp_path / "two")}
    words = [places.get(word, word) for word in shlex.split(line)]
    assert words[0] == "torchrun"
    assert set(places.values()) <= set(words)
    data.write_text("".join(json.dumps({"prompt": f"q{n}", "response": f"a{n}" * (n + 1)}) + "\n" for n in range(7)))
    same = ("--steps", "3", "--no-packing", "--log-every", "1", "--set", "training_args.report_to=none", "--lr", "0.01")
    same += ("--set", "peft_config.lora_dropout=0", "--max-length", "64")
    run = [sys.executable, "-m", "torch.distributed.run", *words[1:], *same, "--batch-size", "2"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Try it:") == 1
    assert done.stderr.count("step 2/3") == 1
    here(
        capsys,
        *("finetune", data, "--model", checkpoint("chatglm3"), "--output", tmp_path / "one", *same),
        *("--batch-size", 4),
    )
    two, one = (
        [json.loads(line) for line in (tmp_path / name / "train_log.jsonl").read_text("utf-8").splitlines()]
        for name in ("two", "one")
    )
    assert [record["step"] for record in two] == [record["step"] for record in one]
    losses = [[record["loss"] for record in records if "loss" in record] for records in (two, one)]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_processes_that_are_not_connected_are_refused(data: Path, checkpoint, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    _, err = here(capsys, "finetune", data, "--model", checkpoint("chatglm3"), "--output", tmp_path / "out", status=1)
    assert "2 processes were started, but they are not connected" in err
    assert not (tmp_path / "out").exists()


def left_behind(folder: Path) -> list[str]:
    return sorted(str(entry.relative_to(folder)) for entry in folder.rglob("*") if entry.is_file())


def test_a_full_disk_is_one_line_and_leaves_no_half(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    base = checkpoint("chatglm3")
    train = ("finetune", data, "--model", base, *FEW, "--steps", 2, "--method")
    here(capsys, *train, "lora", "--lora-rank", 1, "--output", tmp_path / "adapter")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"some text {n}, and more of it: {n * n}" for n in range(300)))
    work = tmp_path / "work"
    work.mkdir()
    for arguments in (
        (*train, "full", "--output", work / "run", "--save-every", 1),
        ("merge", tmp_path / "adapter", "--output", work / "merged"),
        ("quantize", base, "--output", work / "quantized"),
        ("tokenizer", "train", texts, "--output", work / "vocabulary", "--size", 310),
    ):
        with small_files(1 << 11 if arguments[0] == "tokenizer" else 1 << 14):
            _, err = here(capsys, *arguments, status=1)
        line = err.splitlines()[-1]
        assert line.startswith(f"chatglm: {work}"), line
        assert "cannot be written: " in line
        assert "MB are free); free disk space, or choose another folder" in line
        assert "Traceback" not in err
    # Settings, the log and the encoded data of the run; and what quantize goes on with.
    kept = {name for name in left_behind(work) if not name.startswith("run/data/")}
    draft = ".quantized.quantising"
    assert kept <= {"run/settings.yaml", "run/train_log.jsonl", f"{draft}/layers.jsonl", f"{draft}/progress.json"}
    # With room the same commands go on.
    here(capsys, *train, "full", "--output", work / "run", "--save-every", 1, "--resume")
    here(capsys, "quantize", base, "--output", work / "quantized")
    out, _ = here(capsys, "quantize", base, "--output", work / "quantized")
    assert out == f"{work / 'quantized'}: was made from the same weights with the same settings; nothing to do\n"
    _, err = here(capsys, "quantize", base, "--output", work / "quantized", "--bits", 8, status=1)
    assert "exists already" in err


@pytest.mark.parametrize("command", ["finetune", "merge", "quantize", "tokenizer"])
def test_outputs_that_cannot_be_written_are_noticed_first(command, data, checkpoint, tmp_path, capsys) -> None:
    """Before a model is loaded: with it there would be a message of another kind, or minutes of work."""
    base = checkpoint("chatglm3")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    words = {
        "finetune": ("finetune", data, "--model", base, *FEW),
        "merge": ("merge", tmp_path / "adapter", "--model", base),
        "quantize": ("quantize", base),
        "tokenizer": ("tokenizer", "train", data),
    }[command]
    for output in ("/proc/x", data / "x"):
        _, err = here(capsys, *words, "--output", output, status=1)
        assert re.search(r"^chatglm: .*x: (cannot be (made|written)|.*cannot be written to)", err), err


def test_two_runs_in_one_folder(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    train = ("finetune", data, "--model", checkpoint("chatglm3"), *FEW, "--steps", 1, "--output", tmp_path / "out")
    with working_in(tmp_path / "out"):
        _, err = here(capsys, *train, status=1)
        assert f"{tmp_path / 'out'}: another process is writing there (process " in err
    here(capsys, *train)
    with working_in(tmp_path / "out"):
        _, err = here(capsys, *train, "--resume", status=1)
        assert "another process is writing there" in err


def test_resume_as_the_official_script_has_it(data: Path, checkpoint, tmp_path: Path, capsys) -> None:
    """`yes`, or the number of a checkpoint."""
    train = ("finetune", data, "--model", checkpoint("chatglm3"), *FEW, "--output", tmp_path / "out", "--save-every", 1)
    here(capsys, *train, "--steps", 2, "--resume", "no")
    for said, start in (("1", 1), ("yes", 2)):
        _, err = here(capsys, *train, "--steps", 3, "--resume", said)
        assert f"resuming from {tmp_path / 'out' / f'checkpoint-{start}'}" in err
        shutil.rmtree(tmp_path / "out" / "checkpoint-3")
    _, err = here(capsys, *train, "--steps", 3, "--resume", "77", status=1)
    assert "checkpoint-77: no such checkpoint" in err
