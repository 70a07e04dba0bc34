import subprocess
import sys
from pathlib import Path

SITE = Path(__file__).with_name("unfold_site.py")


def test_every_page_renders_on_unfold(tmp_path):
    """With django-unfold every page answers inside unfold's frame, on unfold's own classes."""
    run = subprocess.run(
        [sys.executable, "-W", "error", str(SITE), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert run.returncode == 0, run.stderr
    *pages, classes = run.stdout.splitlines()
    assert len(pages) > 25
    assert [line for line in pages if not line.startswith("200 True True ")] == []
    assert classes == "classes True"
