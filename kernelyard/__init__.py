"""kernelyard: the public names of `core` and `models` under one name.

    import kernelyard as ky

    with ky.load("stories-llama2", backend="cpu_numpy") as model:
        print(model.generate("Once upon a time", max_new_tokens=20).run().text)
"""

from kernelyard._own import check_own

check_own("core", "models")

import core  # noqa: E402 - a shadowed package is named before it is imported
import models  # noqa: E402
from core import *  # noqa: E402, F403
from core import __version__ as __version__  # noqa: E402
from models import *  # noqa: E402, F403

__all__ = [*core.__all__, *models.__all__]
