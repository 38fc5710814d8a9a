"""`python -m admin` is the `tessera` command."""

import sys

from admin.cli import main

sys.exit(main())
