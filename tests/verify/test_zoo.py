"""The table of docs/find-the-bad-kernel.md is what the tools say of the zoo's kernels.

Here one kernel is tried of each way in which a tool learns of a fault, a process for each;
`python tests/support/zoo/table.py` tries all of them, and writes the table. Other tests plant most
of them in one process: test_guards.py, test_packs_and_modes.py, tests/plan/test_failures.py and
tests/conformance.
"""

import os

import pytest
from zoo import table
from zoo.bad import BAD, EVERY
from zoo.run import SHAPES, prepare

KINDS = ("supports_raises", "launch_exits", "exit_launch", "segfault", "endless", "overflow_far",
         "race_ulp", "third_bind", "group_7")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("zoo")
    table.install(found / "site")
    prepare(found)
    return found


def test_the_page_has_every_kernel_of_the_zoo():
    assert list(table.written()) == [bad.what for bad in BAD.values()] and len(BAD) >= 30
    assert all(bad.model in ("stories", *SHAPES) and set(bad.why) <= set(EVERY)
               for bad in BAD.values())


@pytest.mark.skipif(os.name != "posix", reason="signals have other names")
@pytest.mark.parametrize("name", KINDS)
def test_the_page_is_what_the_tools_say(name, folder):
    found = table.row(name, folder)
    assert table.written()[BAD[name].what] == found, (
        "run python tests/support/zoo/table.py " + name)


def test_a_cell_needs_the_kernel_and_the_reason():
    bad = BAD["race_ulp"]
    right = "zoo:rms_norm: two runs differ in bits"
    assert table.cell(bad, "replay", 1, right) == "named"
    assert table.cell(bad, "replay", 1, "two runs differ in bits") == "not named"
    assert table.cell(bad, "replay", 0, right) == "not named"
    assert table.cell(bad, "replay", 1, "zoo:rms_norm is slow") == "named, for another reason"
    assert table.cell(bad, "replay", 1, right + "\nTraceback") == "not named"
    assert table.cell(bad, "--check", 0, "") == bad.why["--check"]
