"""``python -m quant`` is the command ``quant``."""

from quant.commands.main import main

if __name__ == "__main__":
    main()
