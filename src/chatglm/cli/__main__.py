"""`python -m chatglm.cli`."""

import sys

from chatglm.cli import program

sys.exit(program())
