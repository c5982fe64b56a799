"""Run a recipe that needs Ray: RECIPE IN OUT, and then where this repository's packages lie."""

import os
import runpy
import sys

recipe, source, target, *paths = sys.argv[1:]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
sys.argv = [recipe, source, target, "2", "--dtype", "float32"]
runpy.run_path(recipe, run_name="__main__")
