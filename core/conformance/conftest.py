"""Says how to run the suite where pytest does not know it."""

import pytest

PLUGIN = "core.conformance.plugin"


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin(PLUGIN):
        raise pytest.UsageError(f"the conformance suite needs its plugin: pytest -p {PLUGIN} "
                                "--pyargs core.conformance, or kernelyard conform")
