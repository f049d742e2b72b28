"""python -m codesign_opt: the command line."""

from .cli import main

raise SystemExit(main())
