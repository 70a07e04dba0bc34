"""``python -m paygent.cli``: the command line where the ``paygent`` command is not on the path."""

import sys

from paygent.cli import main

if __name__ == "__main__":
    sys.exit(main())
