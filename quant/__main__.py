"""``python -m quant`` is the command ``quant``."""

from quant.cli import main

if __name__ == "__main__":
    main()
