"""Makes a folder for PYTHONPATH hold a plugin, as pip would leave it behind, and uses it."""

import os
import subprocess
import sys
from pathlib import Path


def install(site: Path, distribution: str, name: str, source: str, version: str = "1.0") -> Path:
    """Write a module and a dist-info folder with its entry point `name`; returns `site`."""
    module = distribution.replace("-", "_")
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[kernelyard.plugins]\n{name} = {module}\n")
    return site


def python(site: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run Python with the plugins of `site`, in the folder `work` beside it: plugins are not loaded
    from the current folder."""
    paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    work = site.parent / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, *arguments], cwd=work, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": paths}, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done
