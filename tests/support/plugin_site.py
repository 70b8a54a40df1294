"""Makes a folder for PYTHONPATH hold a plugin, as pip would leave it behind."""

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
