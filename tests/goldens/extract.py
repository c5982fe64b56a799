"""Makes `goldens.json` and `goldens.safetensors` from the full records (which lie outside the repository).

python tests/goldens/extract.py ../shared/golden
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from weights import digest, state

HERE = Path(__file__).parent


def main(source: Path) -> None:
    specs = json.loads((source / "specs.json").read_text("utf-8"))
    records: dict[str, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    for version, spec in specs.items():
        full = json.loads((source / version / "golden.json").read_text("utf-8"))
        recorded = load_file(source / version / "golden.safetensors")
        model, generation = full["model"], full["generation"]
        record = {key: spec[key] for key in ("seed", "dtype", "real_vocab", "config")}
        record["digest"] = digest(state(record))
        record["prompts"] = [
            {"inputs": prompt["inputs"], "argmax": prompt["logits"]["argmax"], "greedy": greedy["new_tokens"]}
            for prompt, greedy in zip(model["prompts"], generation["greedy32"], strict=True)
        ]
        record["batch"] = {"inputs": model["batch"]["inputs"], "greedy": model["batch"]["greedy12"]}
        record["beams"] = [beam["new_tokens"] for beam in generation["beams3"]]
        # GLM-4's folder has sampling defaults of its own, which hold where a call names nothing else.
        defaults = json.loads(spec["files"].get("generation_config.json", "{}"))
        record["defaults"] = {key: defaults[key] for key in ("top_p", "temperature") if key in defaults}
        record["sampled"] = [
            {key: sample[key] for key in ("seed", "kwargs", "generate")} for sample in generation["sampling"]
        ]
        record["layouts"] = [
            {key: layout[key] for key in ("name", "input_ids", "position_ids", "attention_mask_True_is_masked")}
            for layout in model.get("v1_masks_positions") or []
        ]
        records[version] = record
        wanted = ["cols", "batch.logits.cols", *(f"prompt{n}.logits.cols" for n in range(3))]
        wanted += [f"mask.{layout['name']}.cols" for layout in record["layouts"]]
        tensors |= {f"{version}.{name}": recorded[name].contiguous() for name in wanted}
    (HERE / "goldens.json").write_text(json.dumps(records, ensure_ascii=False, indent=1), "utf-8")
    save_file(tensors, HERE / "goldens.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
