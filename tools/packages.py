"""Build sdist and wheel, install the wheel outside the checkout, and run the demo from there.

The installed copy is put before everything else on the path of a fresh process in another folder, so the one heavy
environment serves for both, and the copy that runs is shown to be the wheel's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    """Output of a command; its errors end this one."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def modules(folder: Path) -> set[str]:
    """Python files of the package below a folder."""
    return {p.relative_to(folder).as_posix() for p in (folder / "whylens").rglob("*.py")}


def main() -> None:
    """The sdist makes the wheel, the wheel makes the installation, the installation makes the demo."""
    with tempfile.TemporaryDirectory(prefix="whylens packages ") as name:
        work = Path(name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work / "dist"), str(ROOT))
        (sdist,), (wheel,) = (list((work / "dist").glob(f"*.{kind}")) for kind in ("tar.gz", "whl"))
        with tarfile.open(sdist) as file:
            held = {n.split("/", 1)[1] for n in file.getnames() if "/" in n}
        for needed in ("LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "check", "demo", "tests/test_methods.py"):
            if needed not in held:
                sys.exit(f"The sdist lacks {needed}.")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(work / "site")
        built = {p.name for p in (ROOT / "src/whylens/view/static").iterdir()}
        if built != {p.name for p in (work / "site/whylens/view/static").glob("*")}:
            sys.exit("The wheel lacks scripts of the pages.")
        if modules(work / "site") != modules(ROOT / "src"):
            sys.exit(f"The wheel holds other modules: {modules(work / 'site') ^ modules(ROOT / 'src')}.")
        if not (work / "site/whylens/py.typed").exists():
            sys.exit("The wheel lacks py.typed.")
        elsewhere = work / "some where"
        elsewhere.mkdir()
        path = {"PYTHONPATH": str(work / "site")}
        where = run(sys.executable, "-c", "import whylens; print(whylens.__file__)", cwd=elsewhere, **path).strip()
        if not Path(where).is_relative_to(work):
            sys.exit(f"Not the installed copy: {where}.")
        command = "from whylens.cli import main; main()"
        said = run(sys.executable, "-c", command, "demo", "--images", "64", "--out", "my demo", cwd=elsewhere, **path)
        if "espresso" not in said or not (elsewhere / "my demo/report.html").exists():
            sys.exit(f"The installed demo did not do its work:\n{said}")
        print(f"{sdist.name} and {wheel.name} built, installed elsewhere, demo run from there.")


if __name__ == "__main__":
    main()
