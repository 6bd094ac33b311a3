"""How soon a page of a language model answers in headless Chromium: python tests/benchmarks/bench_page.py

Two models: that of the human numbers, and one of fastai's own sizes. The weights are drawn, since a page takes the same
time for any. From the key Enter to the first word that is painted, and words a second of 1,000; medians.
"""
import shutil
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

from common import machine, table

WATCH = """
window.told = {}
document.addEventListener('keydown', e => { told = { start: e.timeStamp } }, true)
new MutationObserver(() => {
  if (told.first || !document.querySelector('#said button')) return
  told.first = true
  requestAnimationFrame(() => requestAnimationFrame(() => { told.painted = performance.now() }))
}).observe(document.getElementById('said'), { childList: true })
new MutationObserver(() => { if (document.getElementById('stop').disabled) told.end = performance.now() })
  .observe(document.getElementById('stop'), { attributes: true })
"""


def pages(folder):
    "{name: page}"
    import pandas as pd
    from fastai.text.models.awdlstm import awd_lstm_lm_config
    from fastcourse.data import human_numbers
    from fastcourse.page import page
    from fastcourse.text import lm_learner
    words = pd.DataFrame(dict(text=[" ".join(f"word{(7 * i + k) % 8000}" for k in range(40)) for i in range(2000)]))
    res = {}
    for name, df, config in (("human numbers", human_numbers(50), {}), ("fastai's sizes", words, awd_lstm_lm_config)):
        lrnr = lm_learner(df, config=config)
        res[name] = page(lrnr, folder/f"{len(res)}.html", prompt=lrnr.dls.train_ds.numericalize.vocab[12])
    return res


def driver():
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for o in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"): options.add_argument(o)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def measure(d, path, runs=7, n_words=1000):
    "Milliseconds to open the page and to the first word, and words a second; medians of `runs`, the first not counted"
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.support.ui import WebDriverWait
    d.get(path.as_uri())
    opened = d.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    d.execute_script(WATCH)
    d.execute_script(f"document.getElementById('words').value = {n_words}")
    first, speed = [], []
    for _ in range(runs+1):
        d.execute_script("document.getElementById('prompt').focus()")
        ActionChains(d).send_keys(Keys.ENTER).perform()
        WebDriverWait(d, 300, 0.05).until(lambda d: d.execute_script("return told.end && told.painted"))
        told = d.execute_script("return told")
        first.append(told["painted"]-told["start"])
        speed.append(1000*n_words/(told["end"]-told["start"]))
    return opened, statistics.median(first[1:]), statistics.median(speed[1:])


def main():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        sys.exit("bench_page needs Chromium and its driver; on Debian: apt install chromium chromium-driver")
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = pages(Path(folder))
        d = driver()
        try:
            for name, path in made.items():
                small = name == "human numbers"
                opened, first, speed = measure(d, path, *((7, 1000) if small else (3, 20)))
                rows.append([name, f"{path.stat().st_size/1e6:.2f} MB", f"{opened:.0f} ms", f"{first:.0f} ms", f"{speed:.0f}"])
        finally: d.quit()
    rows.append(["asked of the first", "1.5 MB or less", "", "200 ms or less", "300 or more"])
    print(machine(), table(["page of", "size", "opens in", "first word", "words a second"], rows), sep="\n\n")


if __name__ == "__main__": main()
