"""The requests of a file, answered on all machines of a Ray cluster: `chatglm batch` on each, with a part of the lines.

    pip install 'ray[data]' 'chatglm[serve]'        # on every machine
    python recipes/batch/ray_data.py IN.jsonl OUT.jsonl PARTS [OPTIONS OF chatglm batch]

PARTS: as many as there are machines (or GPUs). Each part takes a whole GPU, if the cluster has GPUs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import ray

source, target, parts, *options = sys.argv[1:]


def answer(lines):
    with tempfile.TemporaryDirectory() as folder:
        (given := Path(folder, "in.jsonl")).write_text("\n".join(lines["text"]), "utf-8")
        command = [sys.executable, "-m", "chatglm.cli", "batch", str(given), f"{folder}/out.jsonl", *options]
        subprocess.run(command, check=True)
        return {"text": Path(folder, "out.jsonl").read_text("utf-8").splitlines()}


ray.init()
gpus = 1 if ray.cluster_resources().get("GPU") else 0
lines = ray.data.read_text(source).repartition(int(parts)).map_batches(answer, batch_size=None, num_gpus=gpus)
with open(target, "w", encoding="utf-8") as output:
    output.writelines(f"{line['text']}\n" for line in lines.iter_rows())
