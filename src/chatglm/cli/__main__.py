"""`python -m chatglm.cli`."""

import sys

from chatglm.cli import main

sys.exit(main())
