"""``python -m topolora_monai.cli``."""

import sys

from topolora_monai.cli import main

sys.exit(main())
