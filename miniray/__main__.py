"""``python -m miniray``: the command line."""

import sys

from miniray.cli.main import main

sys.exit(main())
