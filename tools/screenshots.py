"""Pictures of an HTML page as a browser shows it: laptop and phone, light and dark, and on paper.

Needs Chromium. Run: python tools/screenshots.py runs/demo/report/report.html pictures
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

WIDTHS_PIXELS = {"laptop": 1366, "phone": 390}
SCHEMES = {"light": "1", "dark": "0"}
"""As Blink's setting `preferredColorScheme` has them."""


def main() -> int:
    """Write the pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="the HTML file")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--height", type=int, default=900, help="pixels; more shows more")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    address = given.page.resolve().as_uri()
    for width, pixels in WIDTHS_PIXELS.items():
        for scheme, setting in SCHEMES.items():
            browse(
                f"--window-size={pixels},{given.height}",
                f"--blink-settings=preferredColorScheme={setting}",
                f"--screenshot={given.out / f'{width}-{scheme}.png'}",
                address,
            )
    browse("--no-pdf-header-footer", f"--print-to-pdf={given.out / 'paper.pdf'}", address)
    return 0


def browse(*arguments: str) -> None:
    """Run a browser without a window.

    Raises:
        SystemExit: There is none.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("There is no Chromium on the PATH.")
    command = [browser, "--headless=new", "--no-sandbox", "--hide-scrollbars", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    sys.exit(main())
