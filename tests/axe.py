"""axe-core, which looks for what keeps people from using a page: contrast, labels, names, keyboard. `make test` fetches it."""
from pathlib import Path

import pytest

AXE = Path(__file__).parents[1]/"node_modules"/"axe-core"/"axe.min.js"
axe = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not there: npm install --prefix . --no-save axe-core")


def axe_problems(driver) -> list[str]:
    "What axe-core finds on the page that `driver` shows: the rule, and the first element that breaks it."
    if not driver.execute_script("return window.axe !== undefined"): driver.execute_script(AXE.read_text())
    return driver.execute_async_script("const done = arguments[0]; axe.run().then(r => done("
                                       "r.violations.map(v => v.id + ': ' + v.nodes[0].html.slice(0, 200))))")
