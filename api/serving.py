"""What each worker process of `noidai serve` runs; the command told it where by its environment."""

import gc
import os

from fastapi import FastAPI

from api.app import create_app
from api.installation import load_settings

FEW = 50_000
"""Objects that come before memory is looked through for circles: a batch is some 20,000, none."""


def service() -> FastAPI:
    """Return the application.

    What stands from the start is never looked through again: that took a tenth of a request.
    """
    app = create_app(load_settings(), os.environ["NOIDAI_APP_URL"], os.environ["NOIDAI_APP_SECRET"])
    gc.collect()
    gc.freeze()
    gc.set_threshold(FEW)
    return app
