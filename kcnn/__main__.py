"""python -m kcnn is the command kcnn."""

import sys

from kcnn.cli import main

sys.exit(main())
